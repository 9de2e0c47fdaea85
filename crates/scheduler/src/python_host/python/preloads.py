"""Preload modules: Python that runs when the scheduler starts (`dask_setup`) and ends (`dask_teardown`).

Stock's own loader does it, so that modules, files, URLs and text are understood as in the installed
release.
"""

import asyncio
import logging
import sys

logger = logging.getLogger("distributed.preloading")


def load(scheduler, names, argv):
    """Import modules. A map: `usage` when the command line makes no sense, `exit` when a module ended the
    process. Raises what an import raises.
    """
    import click
    from distributed import preloading

    # They are the operator's, who may keep them in the working directory.
    if "" not in sys.path:
        sys.path.insert(0, "")
    argv = list(argv or [])
    nested = bool(argv) and not isinstance(argv[0], str)
    try:
        if nested:
            argv = [list(one) for one in argv]
        else:
            context = click.Context(click.Command("dask-scheduler"))
            context.params["preload"] = names
            preloading.validate_preload_argv(context, None, argv)
        folder = scheduler.local_directory
        loaded = preloading.process_preloads(scheduler, names, argv, file_dir=folder)
    except click.UsageError as error:
        return {"usage": error.format_message()}
    except SystemExit as error:
        return {"exit": _status(error)}
    scheduler.preloads.extend(loaded)
    return {}


async def start(scheduler):
    """Run `dask_setup` of each until it ends or waits for something. A map as that of `load`."""
    setup = asyncio.ensure_future(_set_up(scheduler))
    # What waits may wait for peers, which are let in when this returns.
    for _ in range(3):
        await asyncio.sleep(0)
    if setup.done():
        code = setup.result()
        return {} if code is None else {"exit": code}
    setup.add_done_callback(lambda setup: _end(scheduler, setup.result()))
    return {}


async def _set_up(scheduler):
    """What a module ended the process with, if it did."""
    try:
        for preload in scheduler.preloads:
            try:
                await preload.start()
            except Exception:
                logger.exception("Failed to start preload: %s", preload.name)
    except SystemExit as error:
        return _status(error)
    for callback in scheduler.periodic_callbacks.values():
        if not callback.is_running():
            callback.start()
    return None


def _status(error):
    code = error.code
    return code if isinstance(code, int) else int(code is not None)


def _end(scheduler, code):
    if code is not None:
        logger.error("A preload module ends the scheduler (exit status %s)", code)
        asyncio.ensure_future(scheduler.close())


async def teardown(scheduler):
    """`dask_teardown` of each, in reverse."""
    for preload in reversed(scheduler.preloads):
        try:
            await preload.teardown()
        except (Exception, SystemExit):
            logger.exception("Failed to tear down %s", preload.name)
