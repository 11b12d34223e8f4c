import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { SseDecoder, type SseEvent, SseOverflow } from "../src/internal/sse.ts"
import * as Property from "./support/Property.ts"

type Said = Pick<SseEvent, "event" | "data">

/** The WHATWG algorithm over the whole text. `pending`: an event was left without its blank line. */
const reference = (
  bytes: Uint8Array
): { readonly events: ReadonlyArray<Said>; readonly pending: boolean } => {
  const events: Array<Said> = []
  let event = ""
  let data: Array<string> = []
  for (const line of new TextDecoder().decode(bytes).split(/\r\n|\r|\n/u)) {
    const [field = "", ...rest] = line.split(":")
    const value = rest.join(":").replace(/^ /u, "")
    if (line === "") {
      if (data.length > 0) events.push({ event, data: data.join("\n") })
      event = ""
      data = []
    } else if (field === "data") data.push(value)
    else if (field === "event") event = value
  }
  return { events, pending: data.length > 0 }
}

const blankLine = Buffer.from("\n\n")

/** What must be read: as the reference does, and the event that the end of the stream completes. */
const expected = (bytes: Uint8Array) => reference(Buffer.concat([bytes, blankLine])).events

const said = ({ data, event }: SseEvent): Said => ({ event, data })

const decode = (pieces: ReadonlyArray<Uint8Array>): ReadonlyArray<Said> => {
  const decoder = new SseDecoder()
  return [...pieces.flatMap((piece) => decoder.push(piece)), ...decoder.end()].map(said)
}

/** Text without line ends, with characters of one to four bytes. */
const text = fc.string({
  unit: fc.constantFrom(
    "a",
    "Z",
    "0",
    " ",
    ":",
    "{",
    '"',
    "é",
    "…",
    "\u2028",
    "日",
    "🙂",
    "\u0000",
    "\uFEFF"
  ),
  maxLength: 12
})

const line = fc.oneof(
  { weight: 6, arbitrary: text.map((value) => `data: ${value}`) },
  text.map((value) => `data:${value}`),
  fc.constantFrom("data", "event", "data ", "datas: x", "dat: x", "Data: x", " data: x"),
  text.map((value) => `event: ${value}`),
  text.map((value) => `id: ${value}`),
  fc.constantFrom("retry: 3000", "retry: soon"),
  text.map((value) => `: ${value}`),
  fc.constant(":"),
  text
)

const lineEnd = fc.constantFrom("\n", "\r", "\r\n")

/** Whole streams: events of several lines, each line with an end of its own, the last one perhaps without. */
const stream = fc
  .record({
    bom: fc.boolean(),
    lines: fc.array(
      fc.tuple(fc.oneof({ weight: 3, arbitrary: line }, { weight: 2, arbitrary: fc.constant("") }), lineEnd),
      { maxLength: 24 }
    ),
    last: fc.option(line, { nil: "" })
  })
  .map(({ bom, last, lines }) =>
    Buffer.from(`${bom ? "\uFEFF" : ""}${lines.map(([body, end]) => body + end).join("")}${last}`)
  )

/** Bytes of the same alphabet in any order: halves of characters and marks, ends next to ends. */
const soup = fc
  .array(
    fc.constantFrom(
      ...Buffer.from("data: event\n\r\n\r\uFEFF€🙂\0"),
      // Never a byte of UTF-8.
      0xff
    ),
    { maxLength: 60 }
  )
  .map((bytes) => Uint8Array.from(bytes))

describe("SseDecoder", () => {
  it("reads any stream as the reference does, whatever way it is cut", () => {
    Property.holds(fc.tuple(stream, Property.cuts), ([bytes, at]) => {
      const events = expected(bytes)
      assert.deepStrictEqual(decode([bytes]), events)
      assert.deepStrictEqual(decode(Property.split(bytes, at)), events)
      assert.deepStrictEqual(decode(Property.singles(bytes)), events)
    })
  })

  it("reads any bytes as the reference does, whatever way they are cut", () => {
    Property.holds(
      fc.tuple(soup, Property.cuts),
      ([bytes, at]) => {
        const events = expected(bytes)
        assert.deepStrictEqual(decode([bytes]), events)
        assert.deepStrictEqual(decode(Property.split(bytes, at)), events)
        assert.deepStrictEqual(decode(Property.singles(bytes)), events)
      },
      1000
    )
  })

  it("gives back the events that were written", () => {
    const written = fc.record({ event: text, data: fc.array(text, { minLength: 1, maxLength: 4 }) })
    Property.holds(
      fc.tuple(fc.array(written), lineEnd, fc.boolean(), Property.cuts),
      ([events, end, closed, at]) => {
        const whole = events
          .map(({ data, event }) =>
            [
              `event: ${event}`,
              ": a comment",
              "id: 7",
              ...data.map((piece) => `data: ${piece}`),
              "",
              ""
            ].join(end)
          )
          .join("")
        const bytes = Buffer.from(closed || events.length === 0 ? whole : whole.slice(0, -end.length))
        assert.deepStrictEqual(
          decode(Property.split(bytes, at)),
          events.map(({ data, event }) => ({ event, data: data.join("\n") }))
        )
      }
    )
  })

  it("tells where whole events end, so that a relay never forwards half of one", () => {
    Property.holds(fc.tuple(stream, Property.cuts), ([bytes, at]) => {
      const decoder = new SseDecoder()
      let relayed = Buffer.alloc(0)
      let held = Buffer.alloc(0)
      let count = 0
      for (const piece of Property.split(bytes, at)) {
        for (const event of decoder.push(piece)) {
          count++
          const upTo = Buffer.concat([relayed, held, piece.subarray(0, event.end)])
          assert.strictEqual(reference(upTo).events.length, count)
        }
        held = Buffer.concat([held, piece])
        if (decoder.boundary > 0) {
          const whole = held.length - piece.length + decoder.boundary
          relayed = Buffer.concat([relayed, held.subarray(0, whole)])
          held = held.subarray(whole)
        }
        const forwarded = reference(relayed)
        assert.strictEqual(forwarded.events.length, count)
        assert.isFalse(forwarded.pending)
      }
      assert.deepStrictEqual(Buffer.concat([relayed, held]), bytes)
    })
  })

  it.each([
    [
      "a blank line in the middle of a CRLF is one line end",
      ["data: a\r", "\ndata: b\r", "\n\r", "\n"],
      ["a\nb"]
    ],
    ["a CR at the end of a piece ends its line at once", ["data: a\r\r"], ["a"]],
    ["a byte order mark comes in three pieces", ["\u00ef", "\u00bb", "\u00bfdata: a\n\n"], ["a"]],
    ["an empty data line is an event", ["data:\n\n"], [""]],
    ["an event without data is none", ["event: ping\n\n"], []],
    ["only one space after the colon is dropped", ["data:  a\n\n"], [" a"]],
    ["the last event lacks its blank line", ["data: a\n\ndata: b\n"], ["a", "b"]],
    ["the last line lacks its end", ["data: a\n\ndata: b"], ["a", "b"]],
    ["nothing comes", [], []]
  ])("%s", (_, pieces, data) => {
    assert.deepStrictEqual(
      decode(pieces.map((piece) => Buffer.from(piece, "latin1"))).map((event) => event.data),
      data
    )
  })

  it("delivers an event as soon as its blank line is there", () => {
    const decoder = new SseDecoder()
    assert.deepStrictEqual(decoder.push(Buffer.from("data: a\n")), [])
    assert.deepStrictEqual(decoder.push(Buffer.from("\n")).map(said), [{ event: "", data: "a" }])
    assert.deepStrictEqual(decoder.push(Buffer.from("data: b\r\r")).map(said), [{ event: "", data: "b" }])
    assert.deepStrictEqual(decoder.end(), [])
  })

  it("reads an event of 20 MB that comes in small pieces", () => {
    const data = "0123456789abcdef".repeat(1_310_720)
    const bytes = Buffer.from(`data: ${data}\n\ndata: next\n\n`)
    const pieces = Array.from({ length: Math.ceil(bytes.length / 4096) }, (_, index) =>
      bytes.subarray(index * 4096, (index + 1) * 4096)
    )
    const [first, second, ...rest] = decode(pieces)
    assert.isTrue(first?.data === data)
    assert.strictEqual(second?.data, "next")
    assert.strictEqual(rest.length, 0)
  })

  it("looks at each byte of a piece a bounded number of times, whatever the lines are", () => {
    // A decoder that searches beyond the line it reads would need hours for this.
    for (const filler of ["x\n", "data\n", "event\r\n", ":\r", "\n"]) {
      const bytes = Buffer.from(`${filler.repeat(2_000_000)}\n\ndata: end\n\n`)
      assert.strictEqual(decode([bytes]).at(-1)?.data, "end")
    }
  })

  it("refuses a line beyond all bounds", () => {
    const decoder = new SseDecoder()
    const piece = Buffer.alloc(8 * 1024 * 1024, "a")
    assert.throws(() => {
      for (let size = 0; size <= 128 * 1024 * 1024; size += piece.length) decoder.push(piece)
    }, SseOverflow)
  })
})
