// The page's data: JSON, gzipped, in base64, in <script> elements that are no scripts.

const parts = new Map();
let report = null;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null)); // texts become text nodes: nothing in them is markup
  return made;
}

async function unpack(id) {
  const packed = Uint8Array.from(atob(document.getElementById(`block-${id}`).textContent), (c) => c.charCodeAt(0));
  if (typeof DecompressionStream === "undefined") return JSON.parse(new TextDecoder().decode(gunzip(packed)));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// Texts and pairs of the record at `place`; a part is unpacked when one of its records is asked for.
async function detail(set, place) {
  const size = report.sets[set].part;
  const number = Math.floor(place / size);
  const id = `${set}-${number}`;
  if (!parts.has(id)) parts.set(id, unpack(id));
  const part = await parts.get(id);
  return {
    turns: part.turns[place % size],
    ends: part.ends.map(({ other, utility }) => ({ other: other[place % size], utility: utility[place % size] })),
  };
}

function column(set, key) {
  return report.sets[set].byKey.get(key);
}

// Ids stand here as they are, for the export; on the screen what would act there is spelt out, as delift does it.
function visible(value) {
  return value.replace(/[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, (c) => {
    const code = c.charCodeAt(0).toString(16);
    return code.length < 3 ? `\\x${code.padStart(2, "0")}` : `\\u${code.padStart(4, "0")}`;
  });
}

function text(kind, value) {
  if (value === null || value === undefined) return "";
  if (kind === "id") return visible(value);
  if (kind === "share" || kind === "bar") return `${(100 * value).toFixed(1)}%`;
  if (kind === "count") return Number.isInteger(value) ? value.toLocaleString("en") : short(value);
  if (kind === "signed") return (value < 0 ? "" : "+") + short(value);
  if (kind === "number") return short(value);
  return String(value);
}

function short(value) {
  const made = Number(value).toPrecision(4);
  return made.includes("e") ? String(Number(made)) : made.includes(".") ? made.replace(/\.?0+$/, "") : made;
}

// For browsers without DecompressionStream (before 2023): gzip's inflate (RFC 1951), the plain way.
function gunzip(bytes) {
  let at = 10, bit = 0;
  if (bytes[3] & 8) { while (bytes[at++]); }
  const size = new DataView(bytes.buffer, bytes.byteOffset + bytes.length - 4).getUint32(0, true);
  const out = new Uint8Array(size);
  let end = 0;
  const take = (count) => {
    let value = 0;
    for (let i = 0; i < count; i++) {
      value |= ((bytes[at] >> bit) & 1) << i;
      if (++bit === 8) { bit = 0; at++; }
    }
    return value;
  };
  const tree = (lengths) => {
    const count = new Uint16Array(16), offset = new Uint16Array(16), symbols = [];
    for (const length of lengths) if (length) count[length]++;
    for (let i = 1; i < 16; i++) offset[i] = offset[i - 1] + count[i - 1];
    lengths.forEach((length, symbol) => { if (length) symbols[offset[length]++] = symbol; });
    return { count, symbols };
  };
  const symbol = ({ count, symbols }) => {
    let code = 0, first = 0, index = 0;
    for (let length = 1; length < 16; length++) {
      code |= take(1);
      if (code - count[length] < first) return symbols[index + code - first];
      index += count[length];
      first = (first + count[length]) << 1;
      code <<= 1;
    }
    throw new Error("damaged data");
  };
  const base = (start, step, n) => {
    const found = [];
    for (let i = 0, value = start; i < n; i++) {
      const extra = Math.max(0, Math.floor(i / step) - 1);
      found.push([value, extra]);
      value += 1 << extra;
    }
    return found;
  };
  const lengthOf = base(3, 4, 28).concat([[258, 0]]), distanceOf = base(1, 2, 30);
  let last = 0;
  while (!last) {
    last = take(1);
    const kind = take(2);
    if (kind === 0) {
      if (bit) { bit = 0; at++; }
      const length = bytes[at] | (bytes[at + 1] << 8);
      out.set(bytes.subarray(at + 4, at + 4 + length), end);
      at += 4 + length;
      end += length;
      continue;
    }
    let literals, distances;
    if (kind === 1) {
      literals = tree(Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8)));
      distances = tree(new Array(30).fill(5));
    } else {
      const sizes = [take(5) + 257, take(5) + 1], many = take(4) + 4, codes = new Array(19).fill(0), lengths = [];
      const order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
      for (let i = 0; i < many; i++) codes[order[i]] = take(3);
      const coded = tree(codes);
      while (lengths.length < sizes[0] + sizes[1]) {
        const next = symbol(coded);
        if (next < 16) lengths.push(next);
        else {
          const value = next === 16 ? lengths[lengths.length - 1] : 0;
          const times = next === 16 ? 3 + take(2) : next === 17 ? 3 + take(3) : 11 + take(7);
          for (let i = 0; i < times; i++) lengths.push(value);
        }
      }
      literals = tree(lengths.slice(0, sizes[0]));
      distances = tree(lengths.slice(sizes[0]));
    }
    for (let next = symbol(literals); next !== 256; next = symbol(literals)) {
      if (next < 256) { out[end++] = next; continue; }
      const [length, extra] = lengthOf[next - 257];
      const copies = length + take(extra);
      const [distance, more] = distanceOf[symbol(distances)];
      const back = distance + take(more);
      for (let i = 0; i < copies; i++, end++) out[end] = out[end - back];
    }
  }
  return out;
}
