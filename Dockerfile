# One process, no root, nothing but the wheel and its dependencies.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY tusd_py ./tusd_py
RUN python -m venv /opt/tusd_py && /opt/tusd_py/bin/pip install --no-cache-dir .

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home tusd && mkdir /uploads && chown tusd /uploads
COPY --from=build /opt/tusd_py /opt/tusd_py
ENV PATH=/opt/tusd_py/bin:$PATH PYTHONUNBUFFERED=1 TUSD_PY_HOST=0.0.0.0 TUSD_PY_UPLOAD_DIR=/uploads
USER tusd
VOLUME /uploads
EXPOSE 1080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:1080/healthz', timeout=2)"]
ENTRYPOINT ["tusd-py"]
CMD ["serve"]
