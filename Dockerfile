# A worker of Google Cloud Dataflow: Beam's image, and what the programs import, in the
# versions of constraints.txt. The programs themselves come with every job.
#
#   docker build --tag=IMAGE .                               for shards
#   docker build --tag=IMAGE --build-arg=EXTRAS=[train] .    for predictions: TensorFlow, too
FROM apache/beam_python3.11_sdk:2.77.0

ARG EXTRAS=""

WORKDIR /opt/vgg16-at-scale
COPY constraints.txt pyproject.toml setup.py ./

# Without their folders the package is empty: only its requirements stay. `pip check` sees
# to it that they agree with what Beam's image had before.
RUN pip install --no-cache-dir --constraint=constraints.txt ".${EXTRAS}" \
 && pip uninstall --yes vgg16-at-scale \
 && pip check

# Else every start of a worker would make a virtual environment first.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
