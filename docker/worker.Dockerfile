# The process that holds the networks. The torch wheel brings CUDA's libraries, the base what the driver is asked
# for; without a GPU the same image runs on the CPU. Weights are a volume. Built from the repository root.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1 PATH=/opt/venv/bin:$PATH
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* && python3 -m venv /opt/venv
WORKDIR /app
RUN useradd --uid 10001 --create-home earshot && install -d -o earshot /srv/earshot /srv/weights

# Dependencies change seldom, code often: two layers. The package's metadata name a README; an empty one will do.
COPY pyproject.toml constraints.txt ./
RUN touch README.md && pip install --constraint constraints.txt ".[worker]"
COPY models models
COPY service service

USER earshot
ENV EARSHOT_WEIGHTS_DIR=/srv/weights STORAGE_URL=file:///srv/earshot/storage EARSHOT_SCRATCH_DIR=/srv/earshot/scratch \
    EARSHOT_WORKER_METRICS_HOST=0.0.0.0 EARSHOT_WORKER_METRICS_PORT=9100
EXPOSE 9100
# Loading large weights from a cold disk takes minutes.
HEALTHCHECK --interval=10s --timeout=3s --start-period=300s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9100/metrics', timeout=2)"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["worker"]
