# The HTTP process. No torch, no GPU. Built from the repository root.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1
WORKDIR /app
RUN useradd --uid 10001 --create-home earshot && install -d -o earshot /srv/earshot

# Dependencies change seldom, code often: two layers. The package's metadata name a README; an empty one will do.
COPY pyproject.toml constraints.txt ./
RUN touch README.md && pip install --constraint constraints.txt ".[api]"
COPY models models
COPY service service

USER earshot
ENV EARSHOT_HOST=0.0.0.0 STORAGE_URL=file:///srv/earshot/storage EARSHOT_SCRATCH_DIR=/srv/earshot/scratch
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["api"]
