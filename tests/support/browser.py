"""Reports in a browser, offline, from files: `python -m tests.support.browser FOLDER`, as `nox -s report` calls it.

It writes the reports of some runs and pictures of them in several sizes and looks, and fails where a page asks the
network for anything, writes to the console, is more than 3 MB, is wider than its window, or where axe finds anything
serious.
"""

import sys
from pathlib import Path
from typing import Any

from axe_core_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from parties import Facing, OneShot
from tests.support.reports import run, three_parties

CHROMIUM = "/usr/bin/chromium"
MOST = 3_000_000  # bytes of a page
LOOKS: dict[str, dict[str, Any]] = {
    "narrow": {"viewport": {"width": 320, "height": 700}, "color_scheme": "light"},
    "narrow-dark": {"viewport": {"width": 320, "height": 700}, "color_scheme": "dark"},
    "wide": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "wide-dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
}


def written(folder: Path) -> list[Path]:
    """The reports of runs without protection, with each that proves something, and of three parties."""
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"audit": True},
        "facing": {"protect": Facing(1.0), "audit": True},
        "one-shot": {"protect": OneShot(2.0)},
    }
    files: list[Path] = []
    for name, how in kinds.items():
        files += run(**how).report(folder / f"{name}.html", beside={"alice alone": {"rich/auc": 0.7}}).values()
    return [*files, *three_parties().report(folder / "three.html").values()]


def faults(browser: Any, file: Path, look: str, folder: Path) -> list[str]:
    """What is wrong with the page in that look; leaves a picture of it."""
    said: list[str] = []
    asked: list[str] = []
    context = browser.new_context(offline=True, **LOOKS[look])
    tab = context.new_page()
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.resolve().as_uri())
    tab.screenshot(path=folder / f"{file.stem}-{look}.png", full_page=True)
    found = [f"console: {text}" for text in said]
    found += [f"request: {url}" for url in asked if url != file.resolve().as_uri() and not url.startswith("data:")]
    if tab.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
        found.append("wider than its window")
    if look == "wide":
        tab.pdf(path=folder / f"{file.stem}.pdf", format="A4")
        tab.emulate_media(media="print")
        tab.set_viewport_size({"width": 794, "height": 1123})  # of A4
        tab.screenshot(path=folder / f"{file.stem}-print.png", full_page=True)
        tab.emulate_media(media="screen")
    context.close()
    checked = browser.new_context(offline=True, bypass_csp=True, **LOOKS[look])  # axe is put into the page
    tab = checked.new_page()
    tab.goto(file.resolve().as_uri())
    for violation in Axe().run(tab)["violations"]:
        if violation["impact"] in ("serious", "critical"):
            where = [node["html"][:200] for node in violation["nodes"]]
            found.append(f"axe, {violation['impact']}: {violation['id']}: {where[:3]}")
    checked.close()
    return [f"{file.name}, {look}: {fault}" for fault in found]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files, found = written(folder), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for file in files:
            if file.stat().st_size > MOST:
                found.append(f"{file.name}: {file.stat().st_size} bytes")
            for look in LOOKS:
                found += faults(browser, file, look, folder)
        browser.close()
    print(f"{len(files)} reports in {len(LOOKS)} looks and on paper: {len(found)} faults; pictures are in {folder}")
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
