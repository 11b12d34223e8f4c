import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { boundaryOf, FormFields } from "@llm/api/FormFields"

const boundary = "of-this-test"

interface Part {
  readonly name: string
  readonly value: Buffer
  readonly filename?: string
}

const formOf = (parts: ReadonlyArray<Part>): Buffer =>
  Buffer.concat([
    ...parts.flatMap(({ filename, name, value }) => [
      Buffer.from(
        `--${boundary}\r\nContent-Disposition: form-data; name="${name}"${filename === undefined ? "" : `; filename="${filename}"`}\r\n\r\n`
      ),
      value,
      Buffer.from("\r\n")
    ]),
    Buffer.from(`--${boundary}--\r\n`)
  ])

const read = (bytes: Buffer, cuts: ReadonlyArray<number> = []): FormFields => {
  const fields = new FormFields(boundary)
  let from = 0
  for (const cut of [...cuts.map((at) => at % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b)) {
    fields.push(bytes.subarray(from, cut))
    from = cut
  }
  return fields
}

/** Values that come near to a boundary. */
const text = fc.oneof(
  fc.string({ maxLength: 40 }),
  fc.constantFrom("", "\r\n", "\r\n--", `--${boundary}`.slice(0, -1), "\r\n\r\n", 'name="model"', "gpt-é-✓")
)
const isPlain = ({ value }: Part): boolean => !/(?:^|[\r\n])--of-this-test/u.test(value.toString("latin1"))
const part = (name: fc.Arbitrary<string>, file: boolean): fc.Arbitrary<Part> =>
  fc
    .record({ name, value: fc.array(text, { maxLength: 3 }).map((texts) => Buffer.from(texts.join(""))) })
    .map((made) => (file ? { ...made, filename: 'a; name=model"'.replace('"', "%22") } : made))
    .filter(isPlain)

const parts = fc.uniqueArray(
  fc.oneof(
    part(fc.constantFrom("model", "prompt", "language", "include[]"), false),
    part(fc.constantFrom("file", "image", "mask"), true)
  ),
  { selector: ({ name }) => name, maxLength: 6 }
)

describe("a form", () => {
  it("says the same wherever its pieces are cut, and where each value stands", () => {
    fc.assert(
      fc.property(parts, fc.array(fc.nat(), { maxLength: 12 }), (asked, cuts) => {
        const bytes = formOf(asked)
        const fields = read(bytes, cuts)
        assert.isUndefined(fields.problem)
        assert.isTrue(fields.isOver)
        const plain = asked.filter(({ filename }) => filename === undefined)
        assert.sameMembers(
          [...fields.found.keys()],
          plain.map(({ name }) => name)
        )
        assert.strictEqual(fields.hasFile, plain.length < asked.length)
        for (const { name, value } of plain) {
          const field = fields.found.get(name)
          assert.isTrue(bytes.subarray(field?.start, field?.end).equals(value))
          assert.strictEqual(field?.value, value.toString())
        }
      })
    )
  })

  it("holds nothing of a file", () => {
    const fields = new FormFields(boundary)
    const head = formOf([{ name: "file", filename: "a", value: Buffer.alloc(0) }])
    fields.push(head.subarray(0, head.indexOf("\r\n\r\n") + 4))
    for (let index = 0; index < 100; index++) fields.push(Buffer.alloc(64 * 1024, "-"))
    assert.isTrue(fields.hasFile)
    assert.isFalse(fields.isOver)
    assert.strictEqual(fields.found.size, 0)
  })

  const model = (value: string, more: Partial<Part> = {}): Part => ({
    name: "model",
    value: Buffer.from(value),
    ...more
  })
  const disguised = (disposition: string): Buffer =>
    Buffer.from(`--${boundary}\r\n${disposition}\r\n\r\nlarge\r\n--${boundary}--\r\n`)
  /** A part whose lines end otherwise, as some readers have it. */
  const hidden = (end: string): string =>
    `--${boundary}${end}content-disposition: form-data; name="model"${end}${end}large${end}--${boundary}${end}`
  const behind = (value: string): Buffer =>
    formOf([model("small"), { name: "file", filename: "a", value: Buffer.from(value) }])

  it.each([
    [
      "two models",
      formOf([model("small"), { name: "file", filename: "a", value: Buffer.from("x") }, model("large")])
    ],
    ["a model as a file", formOf([model("large", { filename: "a" })])],
    ["a model of 100 KiB", formOf([model("x".repeat(100 * 1024))])],
    ["a name with an escape", disguised(String.raw`content-disposition: form-data; name="mo\del"`)],
    ["a name in another alphabet", disguised("content-disposition: form-data; name*=utf-8''model")],
    ["two names", disguised('content-disposition: form-data; name="a"; name="model"')],
    [
      "two dispositions",
      disguised('content-disposition: form-data; name="a"\r\ncontent-disposition: form-data; name="model"')
    ],
    ["no name", disguised("content-disposition: form-data")],
    ["a name in pieces", disguised('content-disposition: form-data; name="a"; name*0=model')],
    ["a name in angles", disguised("content-disposition: form-data; name=<model>")],
    ["a name in an encoded word", disguised('content-disposition: form-data; name="=?utf-8?Q?model?="')],
    ["a name behind no semicolon", disguised('content-disposition: form-data; name="a" name="model"')],
    ["a name on a folded line", disguised('content-disposition: form-data; name="a"\r\n ; name="model"')],
    [
      "a disposition before a blank",
      disguised('content-disposition: form-data; name="a"\r\ncontent-disposition : form-data; name="model"')
    ],
    [
      "a disposition behind a bare line feed",
      disguised('content-disposition: form-data; name="a"\ncontent-disposition: form-data; name="model"')
    ],
    ["a part behind bare line feeds", Buffer.concat([Buffer.from(`\n${hidden("\n")}`), behind("x")])],
    ["text before its first part", Buffer.concat([Buffer.from("text"), behind("x")])],
    ["a boundary behind a line feed", behind(`x\n${hidden("\n")}`)],
    ["a boundary behind a carriage return", behind(`x\r${hidden("\r")}`)],
    ["a boundary at the start of a value", behind(hidden("\r\n"))],
    ["no head", Buffer.from(`--${boundary}\r\n\r\nlarge\r\n--${boundary}--\r\n`)],
    ["a boundary within a part", Buffer.from(`--${boundary}x\r\n`)],
    ["a head without an end", Buffer.from(`--${boundary}\r\n${"x".repeat(20_000)}`)]
  ])("with %s is not taken for what it may not be", (_, bytes) => {
    assert.isString(read(bytes).problem)
  })

  it("may begin with an empty line", () => {
    const fields = read(Buffer.concat([Buffer.from("\r\n"), formOf([model("small")])]), [1, 2, 3])
    assert.isUndefined(fields.problem)
    assert.strictEqual(fields.found.get("model")?.value, "small")
  })

  it("has any number of fields, of which some are kept, and the model among them", () => {
    const many = Array.from({ length: 5000 }, (_, index) => ({
      name: `a${index}`,
      value: Buffer.alloc(1024)
    }))
    const fields = read(formOf([...many, model("small")]))
    assert.isUndefined(fields.problem)
    assert.isBelow(fields.found.size, 500)
    assert.strictEqual(fields.found.get("model")?.value, "small")
  })

  it("has its boundary in its type", () => {
    assert.strictEqual(boundaryOf("multipart/form-data; boundary=abc"), "abc")
    assert.strictEqual(boundaryOf('Multipart/Form-Data; charset=utf-8; Boundary="a b"'), "a b")
    for (const type of [
      "application/json",
      "multipart/form-data",
      "multipart/form-data; boundary=a; boundary=b",
      "multipart/form-data; boundary=a; boundary*=utf-8''b",
      "multipart/form-data; boundary=a; boundary =b",
      'multipart/form-data; boundary=a"b',
      String.raw`multipart/form-data; boundary="a\b"`,
      'multipart/form-data; boundary="a "',
      "multipart/form-data; boundary=a,b",
      `multipart/form-data; boundary=${"a".repeat(71)}`
    ])
      assert.isUndefined(boundaryOf(type))
  })
})
