# The image of all nodes: SN, SL, SWOP and SWCI, told apart by the command that starts them.
# COMPILER builds what has no wheel; nothing of it but the result reaches the image.
ARG COMPILER=swarm-base:latest
FROM ${COMPILER} AS build
RUN command -v gcc >/dev/null || (apt-get update -q && apt-get install -y -q --no-install-recommends gcc libc6-dev libgmp-dev)
ENV CC=gcc
COPY requirements.txt /requirements.txt
RUN pip3 install --quiet --no-cache-dir --target /opt/swarm --requirement /requirements.txt \
 && find /opt/swarm -name tests -type d -prune -exec rm -rf {} +
COPY wheels /wheels
RUN pip3 install --quiet --no-cache-dir --no-deps --target /opt/swarm-nodes /wheels/*.whl

FROM swarm-base:latest
ARG VERSION=0
LABEL org.opencontainers.image.title="swarm-node" org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" swarm.image="node"
ENV PATH=/opt/swarm-nodes/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Any user may run a node: its data directory, its user directory and the directory that an SL shares
# with its ML program are open, and a fresh volume mounted there takes their mode over.
RUN mkdir -p /platform/swarm/usr /platform/swarm/SMLNODE /tmp/hpe-swarm \
 && chmod 1777 /tmp /platform/swarm/usr /platform/swarm/SMLNODE /tmp/hpe-swarm
COPY --from=build /opt/swarm /opt/swarm
COPY --from=build /opt/swarm-nodes /opt/swarm-nodes
# By a .pth file and not by PYTHONPATH, which isolated interpreters (-I) ignore and users override.
RUN python3 -c "import pathlib, site; pathlib.Path(site.getsitepackages()[0]).mkdir(parents=True, exist_ok=True); \
pathlib.Path(site.getsitepackages()[0], 'swarm-node.pth').write_text('/opt/swarm-nodes\n/opt/swarm\n')"
WORKDIR /platform/swarm
CMD ["python3", "-c", "print('Name a component: python3 -m sentinel, swarm.learner, swop or swci')"]
