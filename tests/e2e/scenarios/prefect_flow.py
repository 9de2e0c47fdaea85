"""The documentation's mapped flow, through Prefect's own DaskExecutor. Prefect 0.13.19 and 1.4.1."""


def inc_dec_add_sum(address):
    import prefect
    from prefect import Flow, task

    try:
        from prefect.executors import DaskExecutor
    except ImportError:
        from prefect.engine.executors import DaskExecutor

    @task
    def inc(x):
        return x + 1

    @task
    def dec(x):
        return x - 1

    @task
    def add(x, y):
        return x + y

    @task(name="sum")
    def list_sum(values):
        return sum(values)

    with Flow("mapped") as flow:
        incs = inc.map(x=range(100))
        decs = dec.map(x=range(100))
        adds = add.map(x=incs, y=decs)
        total = list_sum(adds)

    state = flow.run(executor=DaskExecutor(address=address))
    assert state.is_successful(), state
    return {"version": prefect.__version__, "total": state.result[total].result}


def a_failing_task(address):
    """An error in one branch is a state of the flow, not of Dask."""
    from prefect import Flow, task

    try:
        from prefect.executors import DaskExecutor
    except ImportError:
        from prefect.engine.executors import DaskExecutor

    @task
    def divide(x):
        return 1 / x

    with Flow("failing") as flow:
        results = divide.map(x=[1, 0, 2])

    state = flow.run(executor=DaskExecutor(address=address))
    assert state.is_failed(), state
    states = state.result[results].map_states
    return [type(mapped).__name__ for mapped in states]
