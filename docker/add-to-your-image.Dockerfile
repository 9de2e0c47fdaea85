# Your own image with the native scheduler and worker: change the first line. The programs lie in a folder of their own,
# so that the other commands of Dask for Python stay what they are. The worker needs Python 3.9 or newer and glibc 2.34 or
# newer; for the scheduler alone, which needs neither, copy `--from=oxidask/scheduler:latest /usr/local/bin/`.
FROM your/image:tag
COPY --from=oxidask/dask:latest /opt/oxidask/bin/ /opt/oxidask/bin/
ENV PATH=/opt/oxidask/bin:$PATH
