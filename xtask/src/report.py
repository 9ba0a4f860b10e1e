"""Opens reports in headless Chromium: BROWSER DIRECTORY [PICTURES]. Prints a line per page; exits with 1 on a failure."""
import base64, json, os, subprocess, sys, tempfile, time, urllib.request
import websocket

BROWSER, PAGES = sys.argv[1:3]
PICTURES = sys.argv[3] if len(sys.argv) > 3 else None
PAINT_MS_MAX = 3000
PICTURE_BYTES_MAX = 300_000
WIDE, HIGH = 1200, 1400
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


def background(tab):
    return tab.value("getComputedStyle(document.body).backgroundColor")


def look(tab):
    failed = False
    papers = set()
    cases = [("short", "light", WIDE), ("short", "dark", WIDE), ("short", "light", 360), ("long", "light", WIDE)]
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
        if width == WIDE and name == "short":
            papers.add(background(tab))
            if PICTURES:
                data = tab.call("Page.captureScreenshot", format="png")["data"]
                picture = base64.b64decode(data)
                if len(picture) > PICTURE_BYTES_MAX:
                    wrong.append(f"the picture has {len(picture)} bytes, more than {PICTURE_BYTES_MAX}")
                with open(os.path.join(PICTURES, f"report-{scheme}.png"), "wb") as file:
                    file.write(picture)
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
