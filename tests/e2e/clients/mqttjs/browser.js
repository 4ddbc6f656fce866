// mqtt.js in a real Chromium: a page of this computer runs the bundle for browsers.
// node browser.js CHROMIUM FOLDER_OF_THIS_FILE URL...
import fs from 'node:fs';
import http from 'node:http';
import { chromium } from 'playwright-core';

const [executablePath, folder, ...urls] = process.argv.slice(2);
const args = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];
// A page of nowhere may not connect to this computer.
const pages = http.createServer((_request, response) => response.end('<!doctype html><title>mqtt.js</title>'));
await new Promise((resolve) => pages.listen(0, '127.0.0.1', resolve));
const browser = await chromium.launch({ executablePath, args });
try {
  // The development certificate's CA is nobody's: this browser takes it, so that the WebSocket is what is tested.
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  await page.goto(`http://localhost:${pages.address().port}/`);
  await page.addScriptTag({ content: fs.readFileSync(`${folder}/node_modules/mqtt/dist/mqtt.js`, 'utf8') });
  const exchange = fs.readFileSync(`${folder}/exchange.js`, 'utf8').replace('export async function', 'async function');
  await page.addScriptTag({ content: `${exchange}; window.roundtrip = roundtrip;` });
  for (const url of urls) {
    for (const protocolVersion of [4, 5]) {
      const said = await page.evaluate(
        ([to, version]) => window.roundtrip(window.mqtt, to, { protocolVersion: version }),
        [url, protocolVersion],
      );
      console.log(`${said} in ${await browser.version()}`);
    }
  }
} finally {
  await browser.close();
  pages.close();
}
