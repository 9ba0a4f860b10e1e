"""Opens reports in headless Chromium: BROWSER DIRECTORY [PICTURES]. Prints a line per page; exits with 1 on a failure."""
import base64, json, os, subprocess, sys, tempfile, time, urllib.request
import websocket

BROWSER, PAGES = sys.argv[1:3]
PICTURES = sys.argv[3] if len(sys.argv) > 3 else None
PAINT_MS_MAX = 3000
PICTURE_BYTES_MAX = 300_000
WIDE, HIGH = 1200, 1400
PICTURE_WIDE = 850
PATIENCE_S = 30


class Tab:
    """One page of the browser, and its events."""

    def __init__(self, port):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            url = json.load(answer)["webSocketDebuggerUrl"]
        self.socket = websocket.create_connection(url, timeout=PATIENCE_S, suppress_origin=True)
        self.events, self.number = [], 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def read(self):
        message = json.loads(self.socket.recv())
        if "method" in message:
            self.events.append(message)
        return message

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = self.read()
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def value(self, script):
        return self.call("Runtime.evaluate", expression=script)["result"].get("value")

    def open(self, url, scheme, width):
        self.events.clear()
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=HIGH, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.read()
        paint = "(performance.getEntriesByType('paint').find(it=>it.name=='first-contentful-paint')||{}).startTime"
        until = time.monotonic() + PATIENCE_S
        while (painted := self.value(paint)) is None and time.monotonic() < until:
            time.sleep(0.02)
        return painted

    def complaints(self, url):
        wrong = []
        for event in self.events:
            what = event["params"]
            if event["method"] == "Network.requestWillBeSent" and what["request"]["url"] != url:
                wrong.append("fetched " + what["request"]["url"])
            elif event["method"] == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
                wrong.append("logged " + what["entry"]["text"])
            elif event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                wrong.append(event["method"] + " " + json.dumps(what)[:200])
        return wrong


def background(tab, of="body"):
    return tab.value(f"getComputedStyle(document.querySelector({of!r})).backgroundColor")


def shown(tab, of):
    """How many elements a selector finds that are displayed."""
    return tab.value(f"[...document.querySelectorAll({of!r})].filter(it => it.checkVisibility()).length")


def drawn(tab):
    """The displayed drawings, by axis, and whether they have the width of their column."""
    return tab.value("[...new Set([...document.querySelectorAll('.v')].filter(it => it.checkVisibility())"
                     ".map(it => it.classList[it.classList.length - 1] + (it.clientWidth > 200)))].join()")


def choose(tab):
    """The switch of the axis by keyboard, and a link from an address to its lane."""
    wrong = []
    tab.value("document.getElementById('axis-clock').focus()")
    for axis in ("age", "spread", "clock"):
        for kind in ("rawKeyDown", "keyUp"):
            tab.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
        if (found := drawn(tab)) != axis + "true":
            wrong.append(f"axis {axis}: {found} is drawn")
    before = background(tab, "#c3 td")
    tab.value("document.querySelector('.index a[href=\"#c3\"]').click()")
    if background(tab, "#c3 td") == before:
        wrong.append("a link to a connection does not highlight it")
    top = tab.value("document.getElementById('c3').getBoundingClientRect().top")
    if not 0 < top < HIGH:
        wrong.append(f"a link to a connection does not lead there: {top}")
    return wrong


def print_it(tab):
    """On paper: white, without what cannot be used there, everything unfolded."""
    wrong = []
    tab.value("document.getElementById('axis-spread').click()")
    tab.call("Emulation.setEmulatedMedia", media="print",
             features=[{"name": "prefers-color-scheme", "value": "dark"}])
    if (found := drawn(tab)) != "clocktrue":
        wrong.append(f"on paper {found} is drawn")
    if (paper := background(tab)) != "rgb(255, 255, 255)":
        wrong.append(f"paper is {paper}")
    if (idle := shown(tab, "nav, input, label")) != 0:
        wrong.append(f"{idle} controls are on paper")
    folded = shown(tab, "details:not(.screen) ul") - shown(tab, "details:not(.screen)")
    if folded != 0:
        wrong.append(f"details are folded on paper: {folded}")
    tab.call("Emulation.setEmulatedMedia", media="", features=[])
    pdf = base64.b64decode(tab.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    if not pdf.startswith(b"%PDF"):
        wrong.append("it cannot be printed")
    return wrong


def draw(tab, scheme):
    picture = base64.b64decode(tab.call("Page.captureScreenshot", format="png")["data"])
    with open(os.path.join(PICTURES, f"report-{scheme}.png"), "wb") as file:
        file.write(picture)
    if len(picture) > PICTURE_BYTES_MAX:
        return [f"the picture has {len(picture)} bytes, more than {PICTURE_BYTES_MAX}"]
    return []


def look(tab):
    failed = False
    papers = set()
    cases = [("short", "light", PICTURE_WIDE), ("short", "dark", PICTURE_WIDE), ("short", "light", WIDE),
             ("short", "light", 360), ("long", "light", WIDE)]
    for name, scheme, width in cases:
        path = os.path.join(PAGES, name + ".html")
        url = "file://" + path
        painted = tab.open(url, scheme, width)
        wrong = tab.complaints(url)
        if painted is None or painted > PAINT_MS_MAX:
            wrong.append(f"first painted after {painted} ms, more than {PAINT_MS_MAX}")
        wider = tab.value("document.documentElement.scrollWidth") - width
        if wider > 0:
            wrong.append(f"{wider} px wider than the window")
        if width == PICTURE_WIDE:
            papers.add(background(tab))
            if PICTURES:
                wrong += draw(tab, scheme)
        wrong += choose(tab)
        wrong += print_it(tab)
        findings = "51,300 findings" if name == "long" else "a capture of the lab"
        took = "never" if painted is None else f"{painted:.0f} ms"
        print(f"{name}, {scheme}, {width} px: first paint {took}, {os.path.getsize(path) // 1000} kB, {findings}")
        for complaint in wrong:
            print("  WRONG:", complaint)
        failed |= bool(wrong)
    if len(papers) != 2:
        print("  WRONG: light and dark look the same:", papers)
        failed = True
    return failed


def main():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
             "--remote-debugging-port=0", "--user-data-dir=" + profile, "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            ready = os.path.join(profile, "DevToolsActivePort")
            until = time.monotonic() + PATIENCE_S
            while not (os.path.exists(ready) and open(ready).read().strip()):
                if time.monotonic() > until or browser.poll() is not None:
                    sys.exit("the browser did not start")
                time.sleep(0.05)
            port = open(ready).readline().strip()
            failed = look(Tab(port))
        finally:
            browser.terminate()
            browser.wait(PATIENCE_S)
    sys.exit(1 if failed else 0)


main()
