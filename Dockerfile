# CPU    docker build -t diffusion-npo-lab . && docker run -p 7860:7860 -v npo-data:/app/data diffusion-npo-lab
# CUDA   docker build --build-arg TORCH=cu130 -t diffusion-npo-lab . && docker run --gpus all -p 7860:7860 ...
# A family of published models, once, into the volume:
#        docker run -v npo-data:/app/data diffusion-npo-lab python -m npo_core.weights fetch --family sd15
FROM python:3.11-slim

ARG TORCH=cpu
RUN useradd --create-home --uid 1000 user
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir uv==0.13.9 && \
    uv pip install --python "$(command -v python)" --no-cache --torch-backend=${TORCH} -r requirements.txt && \
    pip uninstall --yes uv
COPY --chown=user . .
RUN mkdir -p data && chown user data

USER user
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860 HF_HOME=/app/data/huggingface PYTHONUNBUFFERED=1
VOLUME /app/data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['GRADIO_SERVER_PORT'] + '/healthz', timeout=8)"]
CMD ["python", "app.py"]
