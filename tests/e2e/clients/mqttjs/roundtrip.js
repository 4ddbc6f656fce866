// mqtt.js: subscribes, publishes to itself at each QoS, and prints what comes back as one JSON a line.
// roundtrip.js URL [CA FILE]
"use strict";

const fs = require("fs");
const mqtt = require("mqtt");

const [url, ca] = process.argv.slice(2);
const topic = "mqttjs/" + process.pid;
const large = "x".repeat(300000);
const wanted = ["0", "1", "2", large];
const client = mqtt.connect(url, { protocolVersion: 5, reconnectPeriod: 0, ca: ca && fs.readFileSync(ca) });

const fail = (why) => {
  console.error(why);
  process.exit(1);
};
client.on("error", fail);
client.on("connect", () => {
  client.subscribe(topic, { qos: 2 }, (error) => {
    if (error) fail(error);
    [0, 1, 2, 1].forEach((qos, at) => client.publish(topic, wanted[at], { qos }));
  });
});
const found = [];
client.on("message", (_, payload, packet) => {
  const text = payload.toString();
  console.log(JSON.stringify({ qos: packet.qos, bytes: text.length }));
  found.push(text);
  if (found.length === wanted.length) {
    if (wanted.some((text) => !found.includes(text))) fail("other payloads came back");
    client.end(false, () => process.exit(0));
  }
});
setTimeout(() => fail("too late"), 20000);
