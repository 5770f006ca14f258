#!/usr/bin/env python3
"""docs/example-plan against the JSON Schema of `strongroom config schema`, by a validator that knows nothing of the program: the plan is
valid, and each of several mistakes in it is none."""
import copy
import datetime
import json
import tomllib

from common import DOCS, Skip, check, main

EXAMPLE = DOCS / "example-plan"


def plain(value):
    """TOML's dates as text, which JSON has for them."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def test(machine):
    try:
        from jsonschema import Draft202012Validator
    except ImportError as error:
        raise Skip("there is no jsonschema for Python") from error
    schema = json.loads(machine.strongroom("config", "schema").stdout)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)

    def wrong(plan):
        return [error.message for error in validator.iter_errors(plan)]

    files = [EXAMPLE / "strongroom.toml", *sorted((EXAMPLE / "conf.d").glob("*.toml"))]
    plans = {path.name: plain(tomllib.loads(path.read_text())) for path in files}
    for name, plan in plans.items():
        check(not wrong(plan), f"{name} is not valid: {wrong(plan)}")
    print(f"ok: {len(plans)} files of the example plan are valid")

    main_plan = plans["strongroom.toml"]
    mistakes = {
        "a key that does not exist": lambda plan: plan.update(domian=[]),
        "a key that does not exist further in": lambda plan: plan["domain"][0].update(pahts=["/srv"]),
        "a domain without a name": lambda plan: plan["domain"][0].pop("name"),
        "a length of time without a unit": lambda plan: next(iter(plan["class"].values())).update(rpo="24"),
        "a command that is a line": lambda plan: plan["domain"][0]["stream"][0].update(command="pg_dump shop"),
        "a command without a program": lambda plan: plan["domain"][0]["stream"][0].update(command=[]),
        "a name with a space": lambda plan: plan["domain"][0].update(name="orders db"),
        "something left out without a reason": lambda plan: plan["inventory"].update(ignore=[{"path": "/srv"}]),
        "a consistency that does not exist": lambda plan: plan["domain"][0].update(consistency="good"),
    }
    for what, spoil in mistakes.items():
        plan = copy.deepcopy(main_plan)
        spoil(plan)
        check(wrong(plan), f"{what} is taken for valid")
    print(f"ok: {len(mistakes)} mistakes are refused")


if __name__ == "__main__":
    main(test)
