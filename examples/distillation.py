"""Distillation (G. Hinton et al., 2015): a small network learns from a saved run's probabilities.

python examples/distillation.py RUN    (a finished run; without one, a teacher is trained first)
"""

import sys
import tempfile

import mnist_jax as mj

with tempfile.TemporaryDirectory() as folder:
    workdir = sys.argv[1] if len(sys.argv) > 1 else f"{folder}/teacher"
    if len(sys.argv) < 2:
        mj.run(mj.Experiment("teacher", dataset="mnist5k", epochs=5), workdir, quiet=True)
    teacher = mj.load_run(workdir)
    student = mj.Experiment(
        "student",
        teacher=lambda image: teacher.components.predict(teacher.state, image) / 4,  # at temperature 4
        dataset=teacher.config.dataset,
        loss="categorical_crossentropy",
        hidden_sizes=(32,),
        epochs=5,
    )
    result = mj.run(student, f"{folder}/student", quiet=True)
    accuracy = result.summary["test"]["accuracy"]["mean"]
    print(f"teacher {teacher.record['summary']['test']['accuracy']['mean']:.4f}, student: test accuracy {accuracy:.4f}")
