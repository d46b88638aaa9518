// A verifier of the job protocol in another language, written from docs/job-protocol.md alone.
//
//   node verify_vectors.mjs schema/vectors.json     recomputes every vector; exit 1 if one disagrees
//   node verify_vectors.mjs --canonical             reads JSON texts, one a line; writes their canonical forms
//
// Node 18 or later, no packages.

import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

const MAX_BYTES = 262144;
const MAX_DEPTH = 64;
const MAX_VALUES = 10000;
const MAX_INTEGER = Number.MAX_SAFE_INTEGER;
const KINDS = ["started", "progress", "permission_required", "completed", "error"];
const TERMINAL = ["completed", "error"];
const JOB_ID = /^[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,127}$/;
const TIMESTAMP =
  /^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})$/;

class Malformed extends Error {}
class UnsupportedVersion extends Error {}

/** A JSON number with the way it was written: only a literal without point and exponent is an integer. */
class JsonNumber {
  constructor(literal) {
    this.isInteger = !/[.eE]/.test(literal);
    this.value = Number(literal);
    if (!Number.isFinite(this.value)) throw new Malformed("not finite");
    if (this.isInteger && Math.abs(this.value) > MAX_INTEGER) throw new Malformed("integer too large");
  }
}

/** A strict JSON reader: objects become Maps, numbers JsonNumbers; duplicate keys and lone surrogates are refused. */
class Reader {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.values = 0;
  }

  document() {
    const value = this.value(1);
    this.blanks();
    if (this.at !== this.text.length) throw new Malformed("something after the value");
    return value;
  }

  blanks() {
    while (" \t\r\n".includes(this.text[this.at] ?? "x")) this.at += 1;
  }

  value(depth) {
    this.values += 1;
    if (this.values > MAX_VALUES) throw new Malformed("too many values");
    this.blanks();
    const char = this.text[this.at];
    if (char === "{" || char === "[") {
      if (depth > MAX_DEPTH) throw new Malformed("too deep");
      this.at += 1;
      return char === "{" ? this.object(depth) : this.array(depth);
    }
    if (char === '"') return this.string();
    for (const [word, meaning] of [["true", true], ["false", false], ["null", null]]) {
      if (this.text.startsWith(word, this.at)) {
        this.at += word.length;
        return meaning;
      }
    }
    const number = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
    number.lastIndex = this.at;
    const found = number.exec(this.text);
    if (found === null) throw new Malformed("no value");
    this.at += found[0].length;
    return new JsonNumber(found[0]);
  }

  take(char) {
    this.blanks();
    if (this.text[this.at] !== char) return false;
    this.at += 1;
    return true;
  }

  object(depth) {
    const object = new Map();
    if (this.take("}")) return object;
    do {
      this.blanks();
      if (this.text[this.at] !== '"') throw new Malformed("no key");
      const key = this.string();
      if (object.has(key)) throw new Malformed("a key twice");
      if (!this.take(":")) throw new Malformed("no colon");
      object.set(key, this.value(depth + 1));
    } while (this.take(","));
    if (!this.take("}")) throw new Malformed("object not closed");
    return object;
  }

  array(depth) {
    const array = [];
    if (this.take("]")) return array;
    do array.push(this.value(depth + 1));
    while (this.take(","));
    if (!this.take("]")) throw new Malformed("array not closed");
    return array;
  }

  string() {
    const literal = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
    literal.lastIndex = this.at;
    const found = literal.exec(this.text);
    if (found === null) throw new Malformed("no string");
    this.at += found[0].length;
    const string = JSON.parse(found[0]);
    if (/\p{Surrogate}/u.test(string)) throw new Malformed("lone surrogate");
    return string;
  }
}

/** RFC 8785: ECMAScript's own number and string forms, keys sorted by UTF-16 code units. */
function canonical(value, leaveOut = []) {
  if (value instanceof JsonNumber) return JSON.stringify(value.value);
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item)).join(",")}]`;
  if (!(value instanceof Map)) return JSON.stringify(value);
  const [first, ...deeper] = leaveOut;
  const members = [...value.keys()]
    .filter((key) => !(key === first && deeper.length === 0))
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(value.get(key), key === first ? deeper : [])}`);
  return `{${members.join(",")}}`;
}

/** json.dumps(value, sort_keys=True, separators=(",", ":")) of Python, as the old registry's agents signed. */
function oldForm(value) {
  if (value instanceof JsonNumber) return value.isInteger ? String(BigInt(value.value)) : pythonFloat(value.value);
  if (Array.isArray(value)) return `[${value.map(oldForm).join(",")}]`;
  if (value instanceof Map) {
    const keys = [...value.keys()].sort(byCodePoint);
    return `{${keys.map((key) => `${oldForm(key)}:${oldForm(value.get(key))}`).join(",")}}`;
  }
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (unit) => (unit === "\u007f" ? unit : "\\u" + unit.charCodeAt(0).toString(16).padStart(4, "0")),
  );
}

function pythonFloat(number) {
  if (Object.is(number, -0)) return "-0.0";
  const [digits, power] = number.toExponential().split("e");
  const exponent = Number(power);
  if (number !== 0 && (exponent < -4 || exponent >= 16)) {
    return `${digits}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const plain = String(number).includes("e") ? number.toFixed(20).replace(/0+$/, "") : String(number);
  return plain.includes(".") ? plain : plain + ".0";
}

function byCodePoint(one, other) {
  const left = Array.from(one, (char) => char.codePointAt(0));
  const right = Array.from(other, (char) => char.codePointAt(0));
  for (let index = 0; index < Math.min(left.length, right.length); index += 1) {
    if (left[index] !== right[index]) return left[index] - right[index];
  }
  return left.length - right.length;
}

function isInteger(value, least, most) {
  return value instanceof JsonNumber && value.isInteger && value.value >= least && value.value <= most;
}

/** The bytes of a message as a checked event. */
function parse(bytes) {
  if (bytes.length > MAX_BYTES) throw new Malformed("too large");
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Malformed("not UTF-8");
  }
  const payload = new Reader(text).document();
  if (!(payload instanceof Map)) throw new Malformed("not an object");
  const version = payload.get("schema_version");
  if (!isInteger(version, -MAX_INTEGER, MAX_INTEGER)) throw new Malformed("schema_version");
  if (version.value !== 1) throw new UnsupportedVersion();
  const [seq, jobId, kind, timestamp, detail, data] = ["seq", "job_id", "event", "timestamp", "detail", "data"].map(
    (name) => payload.get(name),
  );
  if (!(data instanceof Map)) throw new Malformed("data");
  if (!isInteger(seq, 1, MAX_INTEGER)) throw new Malformed("seq");
  if (typeof jobId !== "string" || !JOB_ID.test(jobId)) throw new Malformed("job_id");
  if (!KINDS.includes(kind)) throw new Malformed("event");
  if (typeof timestamp !== "string" || !TIMESTAMP.test(timestamp)) throw new Malformed("timestamp");
  if (typeof detail !== "string" || [...detail].length > 65536 || detail.includes("\0")) throw new Malformed("detail");
  if (data.has("attempt") && !isInteger(data.get("attempt"), 1, MAX_INTEGER)) throw new Malformed("attempt");
  if (data.has("hmac_kid") && !isInteger(data.get("hmac_kid"), 1, 2 ** 31 - 1)) throw new Malformed("hmac_kid");
  if (data.has("hmac_sig") && typeof data.get("hmac_sig") !== "string") throw new Malformed("hmac_sig");
  const message = canonical(payload, ["data", "hmac_sig"]);
  return {
    payload,
    seq: seq.value,
    jobId,
    kind,
    attempt: data.get("attempt")?.value ?? null,
    kid: data.get("hmac_kid")?.value ?? 1,
    signature: data.get("hmac_sig") ?? null,
    message,
    digest: createHash("sha256").update(message, "utf8").digest("hex"),
  };
}

function sign(message, token) {
  return createHmac("sha256", Buffer.from(token, "utf8")).update(message, "utf8").digest("hex");
}

function same(claimed, right) {
  const one = Buffer.from(claimed, "utf8");
  const other = Buffer.from(right, "utf8");
  return one.length === other.length && timingSafeEqual(one, other);
}

function verifies(event, key) {
  if (same(event.signature, sign(event.message, key.token))) return true;
  if (!key.legacy) return false;
  const data = new Map(event.payload.get("data"));
  data.delete("hmac_sig");
  return same(event.signature, sign(oldForm(new Map(event.payload).set("data", data)), key.token));
}

/** The verdict, in the order of the document's table. */
function decide(event, topic, job) {
  if (event.jobId !== job.job_id) return "unknown_job";
  if (topic !== undefined && topic !== job.topic) return "wrong_topic";
  if (job.tokens.length > 0) {
    if (event.signature === null) return "unsigned";
    const key = job.tokens.find((candidate) => candidate.kid === event.kid);
    if (key === undefined || key.state !== "valid") return "revoked_key";
    if (!verifies(event, key)) return "bad_signature";
  }
  const recorded = job.recorded.map((text) => parse(Buffer.from(text, "utf8"))).find((past) => past.seq === event.seq);
  if (recorded?.digest === event.digest && job.accepted.includes(event.seq)) return "duplicate";
  if (recorded !== undefined && recorded.digest !== event.digest) return "conflict";
  const isTheEnd = event.seq === job.ended && event.kind === job.status;
  if (recorded === undefined && job.ended !== null && TERMINAL.includes(event.kind) && !isTheEnd) return "conflict";
  if (event.seq <= job.start_seq) return "replayed";
  if (event.seq <= job.last_seq && job.last_seq - event.seq > job.window) return "replayed";
  if (recorded === undefined) {
    if (isStale(event.attempt, job)) return "stale_attempt";
    if (job.ended !== null && event.seq > job.ended) return "after_terminal";
  }
  return "accepted";
}

function isStale(attempt, job) {
  if (job.ended !== null) return attempt === null ? job.attempt > 1 : attempt !== job.attempt;
  if (attempt === null) return job.attempt > 1 || (job.attempt === 1 && job.status === "pending");
  return attempt !== job.attempt || job.status === "pending";
}

function bytesOf(vector) {
  if (vector.payload_base64 !== undefined) return Buffer.from(vector.payload_base64, "base64");
  const parts = vector.payload_parts ?? [[vector.payload, 1]];
  return Buffer.from(parts.map(([piece, times]) => piece.repeat(times)).join(""), "utf8");
}

/** The names of the fields in which a vector disagrees with what is computed here. */
function disagreements(vector, job) {
  let event;
  try {
    event = parse(bytesOf(vector));
  } catch (problem) {
    if (!(problem instanceof Malformed) && !(problem instanceof UnsupportedVersion)) throw problem;
    const verdict = problem instanceof Malformed ? "malformed" : "unsupported_version";
    const computed = { verdict, canonical: null, digest: null, signature: null };
    return Object.keys(computed).filter((name) => vector[name] !== computed[name]);
  }
  const key = job.tokens.find((candidate) => candidate.kid === event.kid);
  const computed = {
    verdict: decide(event, vector.topic, job),
    canonical: vector.canonical_sha256_only ? null : event.message,
    digest: event.digest,
    signature: key === undefined ? null : sign(event.message, key.token),
  };
  const wrong = Object.keys(computed).filter((name) => vector[name] !== computed[name]);
  const gap = computed.verdict === "accepted" && event.seq > job.last_seq + 1;
  const missing = gap ? [job.last_seq + 1, event.seq - 1] : undefined;
  if (JSON.stringify(missing) !== JSON.stringify(vector.missing)) wrong.push("missing");
  return wrong;
}

if (process.argv[2] === "--canonical") {
  const lines = readFileSync(0, "utf8").split("\n").filter((line) => line !== "");
  process.stdout.write(lines.map((line) => canonical(new Reader(line).document()) + "\n").join(""));
} else {
  const { contexts, vectors } = JSON.parse(readFileSync(process.argv[2], "utf8"));
  let failures = 0;
  for (const vector of vectors) {
    for (const field of disagreements(vector, contexts[vector.context])) {
      failures += 1;
      console.log(`${vector.name}: ${field} disagrees`);
    }
  }
  console.log(failures ? `${failures} disagreements` : `${vectors.length} vectors agree`);
  process.exitCode = failures ? 1 : 0;
}
