// Reads a store by the contract and compares it with the table: node client.js ADDRESS TABLE PROTO_FOLDER
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { createXXHash3 } from "hash-wasm";

const DEADLINE_MS = 30_000; // of each call

// Each row: name, key, hash (a BigInt), value (null where the key is absent).
async function readTable(path) {
  const plain = (written) =>
    written && Buffer.concat(Array(written.times ?? 1).fill(Buffer.from(written.hex, "hex")));
  const rows = JSON.parse(await readFile(path, "utf8")).keys;
  return rows.map(({ name, key, hash, value }) => ({
    name,
    key: plain(key),
    hash: BigInt(`0x${hash}`),
    value: plain(value),
  }));
}

// 64-bit numbers become decimal strings: a Number holds only 53 bits.
function connect(address, protoFolder) {
  const definition = loadSync("rdrive/v1/reader.proto", {
    includeDirs: [protoFolder],
    longs: String,
    defaults: true,
    oneofs: true,
  });
  const { DataStoreReaderService } = grpc.loadPackageDefinition(definition).rdrive.v1;
  return new DataStoreReaderService(address, grpc.credentials.createInsecure());
}

const deadline = () => ({ deadline: Date.now() + DEADLINE_MS });

async function read(client, key) {
  const { entry } = await promisify(client.Read).call(client, { key }, deadline());
  return entry && entry.payload;
}

// What one batch stream brings: values by index, null for an absent key.
async function readHashes(client, hashes) {
  const values = [];
  let messages = 0;
  let fragments = 0;
  let parts = []; // of the value whose fragments are arriving
  let partsSize = 0;
  const request = { keyHashes: hashes.map(String) };
  for await (const message of client.BatchReadHashedKeys(request, deadline())) {
    messages++;
    for (const item of message.items) {
      if (item.index !== values.length)
        throw new Error(`index ${item.index} comes where ${values.length} is due`);
      switch (item.outcome) {
        case "absent":
          values.push(null);
          break;
        case "entry":
          values.push(item.entry.payload);
          break;
        case "fragment":
          if (Number(item.fragment.payloadOffset) !== partsSize)
            throw new Error(`a fragment begins at ${item.fragment.payloadOffset}, not ${partsSize}`);
          fragments++;
          parts.push(item.fragment.data);
          partsSize += item.fragment.data.length;
          if (partsSize === Number(item.fragment.payloadSize)) {
            values.push(Buffer.concat(parts));
            parts = [];
            partsSize = 0;
          }
          break;
        case "error":
          throw new Error(`item ${item.index}: ${item.error.reason}: ${item.error.message}`);
        default:
          throw new Error(`item ${item.index}: an outcome that this client doesn't know`);
      }
    }
  }
  if (partsSize) throw new Error("the stream ends in the middle of a value");
  return { values, messages, fragments };
}

const same = (a, b) => (a === null || b === null ? a === b : a.equals(b));
const show = (value) => (value === null ? "absent" : `${value.length} bytes`);
const hex = (hash) => hash.toString(16).padStart(16, "0");

// What is wrong, and what was seen.
async function check(client, rows) {
  const hasher = await createXXHash3();
  const hashOf = (key) => BigInt(`0x${hasher.init().update(key).digest("hex")}`);
  const wrong = [];
  for (const { name, key, hash, value } of rows) {
    if (hashOf(key) !== hash) wrong.push(`${name}: hashed to ${hex(hashOf(key))}, not ${hex(hash)}`);
    const got = await read(client, key);
    if (!same(got, value)) wrong.push(`${name}: Read gives ${show(got)}, not ${show(value)}`);
  }

  const { values, messages, fragments } = await readHashes(
    client,
    rows.map(({ key }) => hashOf(key)),
  );
  if (values.length !== rows.length)
    wrong.push(`BatchReadHashedKeys answers ${values.length} keys of ${rows.length}`);
  values.forEach((got, i) => {
    if (!same(got, rows[i].value))
      wrong.push(`${rows[i].name}: BatchReadHashedKeys gives ${show(got)}, not ${show(rows[i].value)}`);
  });
  return {
    wrong,
    seen: `${rows.length} keys hashed and read; one stream of ${messages} messages, ${fragments} fragments among them`,
  };
}

if (process.argv.length !== 5) {
  console.error("usage: node client.js ADDRESS TABLE PROTO_FOLDER");
  process.exit(64);
}
const [address, table, protoFolder] = process.argv.slice(2);
const client = connect(address, protoFolder);
try {
  const { wrong, seen } = await check(client, await readTable(table));
  wrong.forEach((each) => console.error(each));
  if (wrong.length) process.exitCode = 1;
  else console.log(`ok: ${seen}`);
} finally {
  client.close();
}
