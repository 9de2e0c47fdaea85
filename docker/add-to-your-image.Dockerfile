# Your own image with the native scheduler: change the first line. The programs lie in a folder of their own, so that
# `dask worker` and the other commands of Dask for Python stay what they are.
FROM your/image:tag
COPY --from=oxidask/scheduler:latest /usr/local/bin/ /opt/oxidask/bin/
ENV PATH=/opt/oxidask/bin:$PATH
