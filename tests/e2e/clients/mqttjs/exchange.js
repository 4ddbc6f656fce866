// What mqtt.js does in Node and in a browser alike.

/** Publishes at QoS 0, 1 and 2 to itself; a line that says what was done. Rejects after ten seconds. */
export async function roundtrip(mqtt, url, options) {
  const client = mqtt.connect(url, { reconnectPeriod: 0, connectTimeout: 10_000, ...options });
  const topic = `transport/${Math.random().toString(16).slice(2)}`;
  const received = new Map();
  const done = new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${url}: only ${[...received]} in 10 s`)), 10_000);
    client.on('error', reject);
    client.on('message', (_topic, payload, packet) => {
      if (received.has(packet.qos)) reject(new Error(`QoS ${packet.qos} came twice`));
      received.set(packet.qos, payload.length);
      if (received.size === 3) {
        clearTimeout(timer);
        resolve();
      }
    });
  });
  await new Promise((resolve, reject) => {
    client.once('connect', resolve);
    client.once('error', reject);
    client.once('close', () => reject(new Error(`${url}: closed before CONNACK`)));
  });
  const [granted] = await client.subscribeAsync(topic, { qos: 2 });
  if (granted.qos !== 2) throw new Error(`granted ${granted.qos}`);
  // The largest spans many WebSocket frames and TLS records.
  const sizes = [5, 70_000, 1_000_000];
  for (const qos of [0, 1, 2]) await client.publishAsync(topic, new Uint8Array(sizes[qos]).fill(120), { qos });
  await done;
  for (const qos of [0, 1, 2]) {
    if (received.get(qos) !== sizes[qos]) throw new Error(`QoS ${qos}: ${received.get(qos)} bytes`);
  }
  await client.endAsync();
  return `ok ${url} MQTT ${options.protocolVersion}`;
}
