"""report.html: a sweep on one page, in one file that needs no network; its pictures lie beside it too."""

import base64
import html
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mnist_jax.config import Config
from mnist_jax.figures import save
from mnist_jax.files import temp_path
from mnist_jax.sweeps import plots
from mnist_jax.sweeps.space import Dimension, format_value
from mnist_jax.sweeps.table import Row, format_score
from mnist_jax.sweeps.trainer import Objective
from mnist_jax.types import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = "report.html"
_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #ddd; white-space: nowrap }
th { background: #f3f3f3; position: sticky; top: 0 } td.n { text-align: right }
.scroll { overflow: auto; max-height: 32rem; border: 1px solid #ddd }
tr.best { background: #fdecea } tr.pruned, tr.fail { color: #888 }
code, pre { font: 13px/1.4 ui-monospace, monospace } pre { background: #f6f6f6; padding: .6rem; overflow: auto }
img { max-width: 100% } .advice li { margin: .3rem 0 }
.advice { background: #fff6dd; padding: .6rem 1rem; border-left: 4px solid #e0a800 }
"""


def hyperparameter_importance(study: Any, dimensions: Sequence[Dimension]) -> dict[str, float]:
    """Computes PED-ANOVA's importances; empty where there are too few trials or dimensions to compare.

    Args:
      study: Optuna's.
      dimensions: what varies.

    Returns:
      From names to importances that add up to 1.

    Source: S. Watanabe et al., PED-ANOVA, 2023.
    """
    import optuna

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < 10 or len(dimensions) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    values = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {} if not sum(values.values()) > 0 else dict(values)


def _figures(
    rows: Sequence[Row], dimensions: Sequence[Dimension], objective: Objective, study: Any
) -> Iterator[tuple[str, "Figure"]]:
    metric, minimize = objective
    yield "response", plots.response(rows, dimensions, metric, minimize)
    complete = [row for row in rows if row.state == "COMPLETE"]
    if len(dimensions) == 2 and len(complete) > 1:
        yield "heat_map", plots.heat_map(rows, dimensions, metric)
    if len(dimensions) > 1 and len(complete) > 1:
        yield "parallel_coordinates", plots.parallel_coordinates(rows, dimensions, metric)
    if values := hyperparameter_importance(study, dimensions):
        yield "importance", plots.importance(values)
    yield "learning_curves", plots.learning_curves(rows, metric, minimize)
    if any(row.state == "PRUNED" for row in rows):
        yield "epochs_saved", plots.epochs_saved(rows)


def _table(rows: Sequence[Row], dimensions: Sequence[Dimension], metric: str) -> str:
    names = [dimension.name for dimension in dimensions]
    heads = ["trial", *names, f"validation {metric}", "n", "epochs", "seconds", "", "command"]
    lines = ["<tr>" + "".join(f"<th>{html.escape(head)}</th>" for head in heads) + "</tr>"]
    for number, row in enumerate(rows):
        kind = "best" if number == 0 else row.state.lower()
        note = {"PRUNED": "stopped early", "FAIL": f"failed: {row.reason}", "RUNNING": "running"}.get(row.state, "")
        cells = [f"<td class=n>{row.number}</td>"]
        cells += [f"<td>{html.escape(format_value(row.point[name]))}</td>" for name in names]
        cells += [f"<td>{format_score(row)}</td>", f"<td class=n>{len(row.scores)}</td>"]
        cells += [f"<td class=n>{row.epochs}</td>", f"<td class=n>{row.seconds:.1f}</td>"]
        cells += [f"<td>{html.escape(note)}</td>", f"<td><code>{html.escape(row.command)}</code></td>"]
        lines.append(f'<tr class="{kind}">' + "".join(cells) + "</tr>")
    return f"<div class=scroll><table>{''.join(lines)}</table></div>"


def _winner(record: Record, objective: Objective) -> str:
    winner, test = record["winner"], record["winner"]["test"]
    settings = ", ".join(f"{name} = {value}" for name, value in winner["point"].items())
    validation = winner["validation"]
    error = f" (standard error {validation['stderr']:.2g})" if validation["stderr"] is not None else ""
    text = f"<p>The best trial has <b>{html.escape(settings)}</b>: validation {html.escape(objective.metric)} "
    text += f"<b>{validation['mean']:.5g}</b>{error}, {validation['n']} seed{'s' if validation['n'] > 1 else ''}.</p>"
    if test:
        name = objective.metric if objective.metric in test else next(iter(test))
        score = test[name]
        spread = f" (standard deviation {score['std']:.2g}, n = {score['n']})" if score["std"] is not None else ""
        text += f"<p>Trained again with fresh seeds and scored on the test images once: test {html.escape(name)} "
        text += f"<b>{score['mean']:.5g}</b>{spread}.</p>"
    if winner["command"]:
        text += f"<pre>{html.escape(winner['command'])}</pre>"
    return text


def write_report(
    workdir: pathlib.Path,
    config: Config,
    rows: Sequence[Row],
    dimensions: Sequence[Dimension],
    objective: Objective,
    record: Record,
    study: Any,
) -> None:
    """Writes report.html and its pictures.

    Args:
      workdir: the sweep's folder.
      config: what does not vary.
      rows: best first.
      dimensions: what varies.
      objective: what is compared.
      record: of sweep.json.
      study: Optuna's.
    """
    title = f"Sweep of {config.name} on {config.dataset.partition(':')[0]}"
    trained, total = record["epochs"]["trained"], record["epochs"]["of complete trials"]
    body = [f"<h1>{html.escape(title)}</h1>", _winner(record, objective)]
    if record["advice"]:
        items = "".join(f"<li>{html.escape(text)}</li>" for text in record["advice"])
        body.append(f"<div class=advice><b>Before you rely on this</b><ul>{items}</ul></div>")
    facts = (
        f"{record['trials']} trials, search {record['search']}, pruner {record['pruner']}; {trained:,} of {total:,} "
    )
    facts += f"epochs trained; engine: {record['engine']}; {record['seconds']:.0f} s in the last command."
    body.append(f"<p>{html.escape(facts)}</p>")
    for name, figure in _figures(rows, dimensions, objective, study):
        path = workdir / f"{name}.png"
        save(figure, path)
        encoded = base64.b64encode(path.read_bytes()).decode()
        body.append(
            f'<h2>{name.replace("_", " ").capitalize()}</h2><img alt="{name}" src="data:image/png;base64,{encoded}">'
        )
    body += ["<h2>All trials</h2>", _table(rows, dimensions, objective.metric)]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    body.append(
        f"<p><small>{html.escape(versions)}; data {record['dataset'][:16]}; commit {record['commit']}</small></p>"
    )
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    page += f"<style>{_STYLE}</style><body>{''.join(body)}</body></html>\n"
    tmp = temp_path(workdir / REPORT)
    tmp.write_text(page, encoding="utf-8")
    tmp.replace(workdir / REPORT)
