# Training and evaluation of the supervised network. Data, weights and runs are volumes.
# Built from the repository root.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1 PATH=/opt/venv/bin:$PATH
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* && python3 -m venv /opt/venv
WORKDIR /app
RUN useradd --uid 10001 --create-home earshot && install -d -o earshot /data /app/runs /home/earshot/.cache/earshot \
    && chmod 755 /home/earshot

# Dependencies change seldom, code often: two layers. The package's metadata name a README; an empty one will do.
COPY pyproject.toml constraints.txt ./
RUN touch README.md && pip install --constraint constraints.txt ".[train]"
COPY models models

USER earshot
# Installed weights are looked for below HOME, whoever runs this (`TRAINER_USER`).
ENV HOME=/home/earshot MPLCONFIGDIR=/tmp/matplotlib
ENTRYPOINT ["python", "-m", "models.training"]
CMD ["--help"]
