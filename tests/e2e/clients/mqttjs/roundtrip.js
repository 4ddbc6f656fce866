// mqtt.js in Node: connects to each URL in MQTT 3.1.1 and 5, publishes at each QoS and gets it back.
// node roundtrip.js CA_FILE [--cert FILE --key FILE] URL...
import fs from 'node:fs';
import { parseArgs } from 'node:util';
import mqtt from 'mqtt';
import { roundtrip } from './exchange.js';

const { values, positionals } = parseArgs({
  options: { cert: { type: 'string' }, key: { type: 'string' } },
  allowPositionals: true,
});
const [caFile, ...urls] = positionals;
const read = (file) => (file === undefined ? undefined : fs.readFileSync(file));
const tls = { ca: read(caFile), cert: read(values.cert), key: read(values.key) };
for (const url of urls) {
  for (const protocolVersion of [4, 5]) {
    console.log(await roundtrip(mqtt, url, { protocolVersion, ...tls }));
  }
}
