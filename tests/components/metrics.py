#!/usr/bin/env python3
"""What `strongroom status --openmetrics` prints and a run writes for a file collector, read by the parser of Prometheus, which knows
nothing of the program: it takes them, after a failure too, and finds in them what the status says."""
from common import Skip, case, check, equal, main

PLAN = """
[[domain]]
name = "files"
class = "critical"
paths = ["/srv/files"]
[[domain]]
name = "odd-names"
stream = [{ name = "rows", command = ["cat", "/srv/rows"] }]
"""


def test(machine):
    try:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families
    except ImportError as error:
        raise Skip("there is no prometheus_client for Python") from error
    machine.write("srv/files/page", "a page\n")
    machine.begin_plan()
    machine.write("etc/strongroom/conf.d/metrics.toml", machine.here(PLAN))

    def read(text):
        """Values by name and labels. A type that does not fit its samples, a name twice, or no end is an error of the parser."""
        families = list(text_string_to_metric_families(text))
        check(all(family.documentation and family.type != "unknown" for family in families), families)
        samples = [sample for family in families for sample in family.samples]
        found = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
        equal(len(found), len(samples), "samples that can be told apart")
        return found

    for code, health in [(1, {"files": 0, "odd-names": 2}), (0, {"files": 0, "odd-names": 0})]:
        if code == 0:
            machine.write("srv/rows", "1\n2\n")
        machine.strongroom("run", code=code)
        written = read(machine.metrics())
        told = machine.strongroom("status", "--openmetrics", code=4 if code else 0).stdout
        printed = read(told)
        equal(set(name for name, _ in printed) - set(name for name, _ in written), set(), "names that the file lacks")
        for found in [written, printed]:
            for domain, expected in health.items():
                equal(found["strongroom_health", (("domain", domain),)], expected, f"the health of {domain}")
        case("after a run that failed in part" if code else "after a run that went well")


main(test)
