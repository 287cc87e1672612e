"""Pages as a browser lays them out. Headless Chromium or Chrome is looked for under its usual names, or in $CHROME."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTHS = (400, 1300)
QUIET = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]
# nothing outside is asked for, so that a page of formulas does not wait for a font
OFFLINE = [
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-first-run",
    "--disable-extensions",
]

# Every page in a frame of each width. Quarto writes width and height on pictures, so they are set before one is measured.
SCRIPT = """<!doctype html><meta charset=utf-8><body style="margin:0"><script>
const pages = PAGES, widths = WIDTHS, found = [];
const rest = ms => new Promise(done => setTimeout(done, ms));
async function look(page, width) {
  const frame = document.createElement('iframe');
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  await new Promise(done => { frame.onload = done; frame.src = page; document.body.append(frame); });
  const inner = frame.contentDocument, all = [...inner.images].filter(i => !/svg/.test(i.src));
  for (const i of all) { i.loading = 'eager'; await i.decode().catch(() => 0);
    i.setAttribute('width', i.naturalWidth); i.setAttribute('height', i.naturalHeight); }
  await rest(60);
  const over = inner.documentElement.scrollWidth - width;
  let widest = '';
  if (over > 1) for (const e of inner.body.querySelectorAll('*')) { const box = e.getBoundingClientRect();
    if (box.right > width + 1 && box.width) { widest = e.tagName + '.' + e.className + ' ' + e.textContent.trim().slice(0, 40); break; } }
  const bent = all.filter(i => i.clientWidth && i.naturalWidth &&
    Math.abs(i.clientWidth / i.clientHeight / (i.naturalWidth / i.naturalHeight) - 1) > 0.03).length;
  const room = t => (t.closest('.cell-output-display, .cell-output, main') || inner.body).getBoundingClientRect();
  const cut = [...inner.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > room(t).right + 2).length;
  const missing = all.filter(i => !i.naturalWidth).length;
  found.push({page, width, over, widest, bent, missing, cut});
  frame.remove();
}
(async () => { for (const page of pages) for (const width of widths) await look(page, width);
  await fetch('/found', {method: 'POST', body: JSON.stringify(found)}); })();
</script>"""


def find_browser() -> str | None:
    "The browser, or None where there is none."
    return os.environ.get("CHROME") or next(filter(None, map(shutil.which, NAMES)), None)


class _Handler(SimpleHTTPRequestHandler):
    "The pages, the page that looks at them, and what it found."

    def do_GET(self):
        if self.path != "/look":
            return super().do_GET()
        body = self.server.script.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.server.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.finished.set()

    def log_message(self, *args):
        pass


def layout(browser: str, folder: Path, pages: list[str], timeout: float = 300) -> list[dict]:
    "Of every page at every width: pixels beyond it, pictures out of shape, pictures that do not load, tables that scroll."
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    server.finished, server.found = threading.Event(), []
    server.script = SCRIPT.replace("PAGES", json.dumps(pages)).replace("WIDTHS", json.dumps(WIDTHS))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        address = f"http://127.0.0.1:{server.server_port}/look"
        command = [
            browser,
            *QUIET,
            *OFFLINE,
            f"--user-data-dir={profile}",
            "--remote-debugging-port=0",
            address,
        ]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if not server.finished.wait(timeout):
                raise SystemExit(f"{browser} did not finish looking at the pages in {timeout:.0f} s")
        finally:
            running.terminate()
            running.wait(20)
            server.shutdown()
    return server.found


def measure(browser: str, folder: Path, pages: list[str]) -> list[str]:
    "What does not fit, in words."
    faults = []
    for one in layout(browser, folder, pages):
        where = f"{one['page']} at {one['width']} px"
        if one["over"] > 1:
            faults.append(f"{where}: {one['over']} px too wide ({one['widest']!r})")
        if one["bent"]:
            faults.append(f"{where}: {one['bent']} pictures out of shape")
        if one["missing"]:
            faults.append(f"{where}: {one['missing']} pictures do not load")
        if one["cut"] and one["width"] == max(WIDTHS):
            print(f"note: {where}: {one['cut']} tables hide their last column until they are scrolled")
    return faults
