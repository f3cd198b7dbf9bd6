"""Packages, and the one reason for each dependency."""

from setuptools import find_packages, setup

# What a shard worker needs, and nothing else: a cloud worker installs just this.
SHARDS = [
    "absl-py",  # command-line flags
    "apache-beam",  # runs the shard job on one machine or on a cluster
    "google-crc32c",  # the checksum of the TFRecord frame, in C
    "numpy",  # pixels
    "obstore",  # s3://, gs:// and az://; workers of Dataflow install this list alone
    "opencv-python-headless",  # INTER_AREA, the fastest faithful downscaling
    "pillow",  # headers, EXIF and every format but JPEG
    "protobuf",  # tf.train.Example without TensorFlow
    "simplejpeg",  # libjpeg-turbo: scaled decoding that reports damage
    "tqdm",  # progress with a rate and an ETA
]

TRAIN = [
    "jinja2",  # pages for people: templates that escape by themselves
    "matplotlib",  # pictures where people would rather look: curves, bars
    "orjson",  # the fastest exact text of float32: the prediction CSVs
    "pandas",  # reads the CSVs that it and others wrote
    "pyarrow",  # predictions as Parquet
    "tensorboard",  # shows what training logs
    "tensorflow",  # tf.data, Keras, MirroredStrategy
    "zstandard",  # predictions as .csv.zst, which pandas reads by it, too
]

GCP = [
    "apache-beam[gcp]",  # Dataflow
    "google-cloud-storage",  # the bucket of --temp_location is looked at
    "setuptools",  # makes the package that is sent to Dataflow's workers
]

DASK = [
    "dask",  # --runner=dask: Beam's runner makes a graph of it
    "distributed",  # its scheduler and its workers
]

STORES = ["botocore"]  # AWS_PROFILE, SSO and roles, which obstore does not know

DEV = [
    *DASK,  # tests of --runner=dask
    *STORES,  # tests of stores
    "flask",  # moto's S3 as a server; `moto[server]` brings 30 packages more
    "flask-cors",  # the same
    "import-linter",  # make check: the arrows between packages and folders
    "moto[s3]",  # an S3 server on this machine
    "mypy",  # make check: types
    "pytest",  # make test
    "pytest-timeout",  # ends a test that hangs, and shows where
    "pytest-xdist",  # tests on every core
    "ruff",  # make check, make format
    "scikit-learn",  # what tests hold the metrics to
    "uv",  # make constraints: resolves every extra at once
]

# Packages that have some.
TEMPLATES = (
    *("pipeline.inspection", "pipeline.page", "predictor.evaluation"),
    "trainer.report",
)

setup(
    name="vgg16-at-scale",
    version="0.1.0",
    description="Fine-tune VGG16 on image collections that fit nowhere comfortably",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["pipeline*", "trainer*", "predictor*"]),
    package_data={
        **{name: ["py.typed"] for name in ("pipeline", "trainer", "predictor")},
        **{name: ["*.j2"] for name in TEMPLATES},
    },
    install_requires=SHARDS,
    extras_require={
        "train": TRAIN,
        "gpu": [*TRAIN, "tensorflow[and-cuda]"],  # CUDA, cuDNN and NCCL as wheels
        "gcp": [*GCP, *STORES],
        "stores": STORES,  # s3://
        "aws": STORES,  # the name that it had; goes with the next release
        "dask": DASK,
        "dev": DEV,
    },
)
