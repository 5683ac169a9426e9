"""The lecture's programs in Keras with fit, evaluate and predict; KERAS_BACKEND selects the backend."""

import keras
from common import load_data, measure, parse_args
from keras import layers


def build_model(model: str) -> keras.Model:
    net = [layers.Input((28, 28, 1))]
    if model == "perceptron":
        net += [layers.Flatten(), layers.Dense(784, activation="relu")]
    elif model == "cnn":
        net += [layers.Conv2D(32, (5, 5), activation="relu"), layers.MaxPooling2D(), layers.Dropout(0.2)]
        net += [layers.Flatten(), layers.Dense(128, activation="relu")]
    elif model == "deep_cnn":
        for stage, filters in enumerate((32, 64, 128)):
            net += [layers.MaxPooling2D()] if stage else []
            for _ in range(2 if stage else 1):
                net.append(layers.Conv2D(filters, 3 if stage else 5, padding="same", use_bias=False))
                net += [layers.BatchNormalization(momentum=0.9), layers.ReLU()]
    return keras.Sequential([*net, layers.Flatten(), layers.Dense(10, activation="softmax", dtype="float32")])


def main() -> None:
    args = parse_args()
    images, labels = load_data(args)
    x = images.astype("float32") / 255
    if args.dtype == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    model = build_model(args.model)
    optimizer = keras.optimizers.SGD(0.01) if args.model == "deep_cnn" else "adam"
    model.compile(loss="sparse_categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    options = {"batch_size": args.batch_size, "verbose": 0}
    run_pass = {
        "train": lambda: model.fit(x, labels, epochs=1, **options),
        "evaluate": lambda: model.evaluate(x, labels, **options),
        "predict": lambda: model.predict(x, **options),
    }[args.task]
    measure(args, len(x), run_pass, {"keras": keras.__version__}, keras.backend.backend())


if __name__ == "__main__":
    main()
