# docker build -t diffusion-npo-lab . && docker run -p 7860:7860 -v npo-data:/app/data diffusion-npo-lab
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 user
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY --chown=user . .
RUN mkdir -p data && chown user data

USER user
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860
VOLUME /app/data
EXPOSE 7860
CMD ["python", "app.py"]
