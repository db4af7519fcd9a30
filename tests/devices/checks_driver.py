"""One party that checks and does not train, for tests. Its argument is a JSON object; it prints its checks as JSON."""

import json
import sys
from pathlib import Path

from parties import Study, Tls, production
from parties.command.checks import Check, check_alone, check_reach, check_together, together
from parties.study.own import Own


def main(settings: dict) -> None:
    study, own = Path(settings["study"]), Path(settings["own"])
    if "version" in settings:
        together.versions = lambda: {"mmoe-jax": settings["version"]}  # type: ignore[attr-defined]
    with check_alone(study, own, settings["party"], Path(settings["out"])) as alone:
        say("alone", alone.checks)
        agreed, mine = Study.read(study), Own.read(own)
        say("reach", reached := check_reach(agreed, mine))
        if not all(check.ok for check in reached):
            return
        places = {party: {"address": address} for party, address in mine.addresses.items()}
        how = agreed.meeting
        tls = Tls(**mine.tls)
        with production(places, mine.party, transport=how.transport, tls=tls, deadline=how.deadline) as devices:
            say("together", check_together(agreed, mine, devices, alone))


def say(when: str, checks: list[Check]) -> None:
    print(f"\n{when}", json.dumps(checks), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
