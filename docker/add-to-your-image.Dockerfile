# Your own image with the native scheduler: change the first line. In images whose Python lies elsewhere (conda), copy to the
# folder that has `dask` and comes first on PATH, such as /opt/conda/bin/.
FROM your/image:tag
COPY --from=oxidask/scheduler:latest /usr/local/bin/dask-scheduler /usr/local/bin/dask /usr/local/bin/
