"""Preload modules: Python that runs when the scheduler starts (`dask_setup`) and ends (`dask_teardown`).

Stock's own loader does it, so that modules, files, URLs and text are understood as in the installed
release.
"""

import sys


async def load(scheduler, names, argv):
    """Load modules and run their `dask_setup`. A map: `usage` when the command line makes no sense,
    `exit` when a module ended the process. Raises what an import raises.
    """
    import click
    from distributed import preloading

    # They are the operator's, who may keep them in the working directory.
    if "" not in sys.path:
        sys.path.insert(0, "")
    argv = list(argv or [])
    nested = bool(argv) and not isinstance(argv[0], str)
    try:
        if not nested:
            context = click.Context(click.Command("dask-scheduler"))
            context.params["preload"] = names
            preloading.validate_preload_argv(context, None, argv)
        with_options = [list(one) for one in argv] if nested else argv
        process = getattr(preloading, "process_preloads", None)
        if process is None:  # before 2.31
            modules = preloading.preload_modules(names, file_dir=scheduler.local_directory, argv=argv)
            return {"modules": list(modules)}
        preloads = process(scheduler, names, with_options, file_dir=scheduler.local_directory)
        scheduler.preloads.extend(preloads)
        await start(preloads)
    except click.UsageError as error:
        return {"usage": error.format_message()}
    except SystemExit as error:
        code = error.code
        return {"exit": code if isinstance(code, int) else int(code is not None)}
    for callback in scheduler.periodic_callbacks.values():
        if not callback.is_running():
            callback.start()
    return {}


async def start(preloads):
    """`dask_setup` of each."""
    if hasattr(preloads, "start"):
        await preloads.start()
        return
    for preload in preloads:
        await preload.start()


async def teardown(scheduler):
    """`dask_teardown` of each, in reverse."""
    import logging

    for preload in reversed(scheduler.preloads):
        try:
            await preload.teardown()
        except (Exception, SystemExit):
            logging.getLogger("distributed.preloading").exception("Failed to tear down %s", preload.name)
