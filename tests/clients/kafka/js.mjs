// kafkajs: admin, produce, a group that reads from the beginning and goes on.
import { createRequire } from "node:module";
const require = createRequire(import.meta.url);
const { Kafka, logLevel } = require("kafkajs");

const bootstrap = process.argv[2];
const name = `kafkajs-${Math.random().toString(16).slice(2, 10)}`;
const fail = (what) => { console.error(`js.mjs: ${what}`); process.exit(1); };
setTimeout(() => fail("not done after 120 s"), 120_000).unref();

const kafka = new Kafka({ clientId: "js", brokers: [bootstrap], logLevel: logLevel.ERROR });
const admin = kafka.admin();
await admin.connect();
await admin.createTopics({ topics: [{ topic: name, numPartitions: 2 }] });

const producer = kafka.producer({ idempotent: true });
await producer.connect();
const numbers = [...Array(100).keys()].map(String);
await producer.send({ topic: name, messages: numbers.map((n) => ({ key: n, value: n, headers: { n } })) });

async function read(count) {
  const consumer = kafka.consumer({ groupId: name, sessionTimeout: 6000, rebalanceTimeout: 6000 });
  await consumer.connect();
  await consumer.subscribe({ topic: name, fromBeginning: true });
  const seen = [];
  await new Promise((done) => {
    consumer.run({
      eachMessage: async ({ message }) => {
        seen.push(message.value.toString());
        if (seen.length === count) done();
      },
    });
  });
  await consumer.disconnect();
  return seen;
}

if (new Set(await read(100)).size !== 100) fail("records are missing or doubled");
await producer.send({ topic: name, messages: [{ value: "later" }] });
const later = await read(1);
if (later[0] !== "later") fail(`the group went on with ${later[0]}`);
const offsets = await admin.fetchOffsets({ groupId: name, topics: [name] });
const sum = offsets[0].partitions.reduce((sum, p) => sum + Number(p.offset), 0);
if (sum !== 101) fail(`committed offsets sum up to ${sum}`);
const { groups } = await admin.describeGroups([name]);
if (groups[0].state !== "Empty") fail(`the group is ${groups[0].state}`);
await admin.deleteGroups([name]);
await admin.deleteTopics({ topics: [name] });
await producer.disconnect();
await admin.disconnect();
console.log("kafkajs: ok");
process.exit(0);
