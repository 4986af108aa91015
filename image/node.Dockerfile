# The image of all nodes: SN, SL, SWOP and SWCI, told apart by the command that starts them.
# COMPILER builds what has no wheel; nothing of it but the result reaches the image, which is BASE and
# two directories below /opt. Both need the same Python, wherever that is: only `python3` on the PATH.
ARG BASE=swarm-base:latest
ARG COMPILER=swarm-base:latest
FROM ${COMPILER} AS build
USER root
COPY compiler /compiler
RUN sh /compiler
ENV CC=gcc
COPY requirements.txt /requirements.txt
RUN python3 -m pip install --quiet --no-cache-dir --target /opt/swarm --requirement /requirements.txt \
 && find /opt/swarm -name tests -type d -prune -exec rm -rf {} +
COPY wheels /wheels
# The commands start the Python of the image, which need not be where this stage has its own.
RUN python3 -m pip install --quiet --no-cache-dir --no-deps --target /opt/swarm-nodes /wheels/*.whl \
 && sed -i '1s|^#!.*|#!/usr/bin/env python3|' /opt/swarm-nodes/bin/*

FROM ${BASE}
ARG VERSION=0
LABEL org.opencontainers.image.title="swarm-node" org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" swarm.image="node"
USER root
ENV PATH=/opt/swarm-nodes/bin:$PATH HOME=/platform/swarm/home \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SWARM_PULSE=/tmp/swarm-pulse
# Any user may run a node: its data directory, its user directory and the directory that an SL shares
# with its ML program are open, and a fresh volume mounted there takes their mode over.
RUN mkdir -p /platform/swarm/usr /platform/swarm/SMLNODE /platform/swarm/home /tmp/hpe-swarm \
 && chmod 1777 /tmp /platform/swarm/usr /platform/swarm/SMLNODE /platform/swarm/home /tmp/hpe-swarm
COPY --from=build /opt/swarm /opt/swarm
COPY --from=build /opt/swarm-nodes /opt/swarm-nodes
# By a .pth file and not by PYTHONPATH, which isolated interpreters (-I) ignore and users override.
# Its last line lets `docker stop` end a node that is still starting, as the first process, too.
RUN python3 -c "import pathlib, site; pathlib.Path(site.getsitepackages()[0]).mkdir(parents=True, exist_ok=True); \
pathlib.Path(site.getsitepackages()[0], 'swarm-node.pth').write_text('/opt/swarm-nodes\n/opt/swarm\nimport swarm.first_process\n')"
WORKDIR /platform/swarm
# Nobody in particular; the run-* commands name the owner of the node's private key instead.
USER 65532:65532
# A node that starts has a minute; a third of a second of work every half minute.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python3", "-m", "swarm.health"]
CMD ["python3", "-c", "print('Name a component: python3 -m sentinel, swarm.learner, swop or swci')"]
