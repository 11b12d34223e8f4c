import { Redaction } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Logger, Schema, Tracer } from "effect"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

const alphabet = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"]
const secret = fc.string({ unit: fc.constantFrom(...alphabet), minLength: 20, maxLength: 80 }).map(
  // A run that no surrounding text contains by chance.
  (body) => `Q7x${body}`
)

/** What carries a key in the wild, and the piece of it that must never be seen. */
const carried = fc.tuple(
  secret,
  fc.constantFrom(
    (key: string) => `sk-${key}`,
    (key: string) => `sk-proj-${key}`,
    (key: string) => `sk-svcacct-${key}`,
    (key: string) => `sk-admin-${key}`,
    (key: string) => `sess-${key}`,
    (key: string) => `whsec_${key}`,
    (key: string) => `Bearer ${key}`,
    (key: string) => `Authorization: Bearer ${key}`,
    (key: string) => `authorization: Basic ${key}=`,
    (key: string) => `api-key: ${key}`,
    (key: string) => `{"api_key":"${key}"}`,
    (key: string) => `?api-key=${key}&api-version=1`,
    (key: string) => `password = '${key}'`,
    (key: string) => `password = 'with, a } & blank ${key}'`,
    (key: string) => `_sk-${key}_`,
    (key: string) => `Bearer Bearer ${key}`,
    (key: string) => `Bearer%20${key}`,
    (key: string) => `["x-api-key","${key}"]`,
    (key: string) => `cookie: a=b; session=${key}`,
    (key: string) => `https://admin:${key}@localhost:5432/db`,
    (key: string) => `aws_secret_access_key = ${key}`,
    (key: string) => `token=${key}\\${key}`,
    (key: string) => `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----`,
    (key: string) => `eyJhbGciOiJIUzI1NiJ9.${key}.${key}`,
    (key: string) => `eyJhbGciOiJkaXIifQ..${key}.${key}.${key}`,
    (key: string) => `${key.replaceAll("_", "a").slice(0, 60)}@example.com`,
    (key: string) => `?to=${key.replaceAll("_", "a").slice(0, 60)}%40example.com`
  )
)

/** Words around the key; letters must not touch it, as they would make it another word. */
const around = fc.string({ unit: "grapheme", maxLength: 300 })
const separator = fc.constantFrom(" ", "\n", ": ", '"', "(", ",", "/")

describe("Redaction", () => {
  it.each([
    ["Incorrect API key provided: sk-proj-abc123def456.", "Incorrect API key provided: [redacted]"],
    ["Incorrect API key provided: sk-ab***********wxyz. See", "Incorrect API key provided: [redacted] See"],
    ["header authorization: Bearer abcdef.ghi+jkl/m==", "header authorization: [redacted]"],
    [
      "url https://h/v1?api-key=0123456789abcdef&api-version=1",
      "url https://h/v1?api-key=[redacted]&api-version=1"
    ],
    ['{"api_key": "0123456789"}', '{"api_key": "[redacted]"}']
  ])("takes the key out of %j and leaves the rest", (text, expected) => {
    assert.strictEqual(Redaction.redact(text), expected)
  })

  it.each([
    "Rate limit reached for gpt-6-luna in organization org-abc on tokens per min (TPM): Limit 30000, Used 28039",
    "The model `gpt-6-luna` does not exist or you do not have access to it.",
    "Invalid value for 'max_tokens': must be at least 1.",
    "upstream connect error or disconnect/reset before headers"
  ])("leaves %j alone", (text) => {
    assert.strictEqual(Redaction.redact(text), text)
  })

  it("lets no key survive, wherever it stands and whatever carries it", () => {
    Property.holds(
      fc.tuple(around, separator, carried, separator, around),
      ([before, left, [key, carry], right, after]) => {
        const safe = Redaction.redact(`${before}${left}${carry(key)}${right}${after}`)
        assert.notInclude(safe, key.slice(0, 12))
      },
      1000
    )
  })

  it("lets no key survive at the end of what is kept, where the cut falls into it", () => {
    Property.holds(
      fc.tuple(carried, fc.integer({ min: 0, max: 700 }), fc.integer({ min: 1, max: 150 })),
      ([[key, carry], offset, limit]) => {
        const safe = Redaction.redact(`${"x ".repeat(offset)}${carry(key)}`, limit)
        assert.notInclude(safe, key.slice(0, 9))
      },
      1000
    )
  })

  it("is the same the second time", () => {
    Property.holds(fc.tuple(around, carried, around), ([before, [key, carry], after]) => {
      const once = Redaction.redact(`${before} ${carry(key)} ${after}`, 10_000)
      assert.strictEqual(Redaction.redact(once, 10_000), once)
    })
  })

  it("keeps no more than the limit, and says where it cut", () => {
    assert.strictEqual(Redaction.redact("abcdef", 3), "abc…")
    assert.strictEqual(Redaction.redact("abc", 3), "abc")
    assert.strictEqual(Redaction.redact("a ".repeat(5_000_000)).length, 501)
  })
})

describe("encoded texts", () => {
  /** Once encoded: `\n` and `\"` stand for line ends and quotes, and touch what is beside them. */
  const encoded = (text: string, times: number): string =>
    times === 0 ? text : encoded(JSON.stringify({ text }), times - 1)

  it("lose every key, and are still JSON", () => {
    const left = fc.constantFrom("\n", "\t", '"', "\\", " ", "\u001b[31m")
    Property.holds(
      fc.tuple(around, left, carried, separator, fc.integer({ min: 1, max: 3 })),
      ([before, beside, [key, carry], right, times]) => {
        const safe = Redaction.make()(encoded(`${before}${beside}${carry(key)}${right}`, times))
        assert.notInclude(safe, key.slice(0, 12))
        JSON.parse(safe)
      },
      1000
    )
  })

  it.each([
    [
      JSON.stringify({ body: '{"api_key":"abcdefgh","n":1}' }),
      '{"body":"{\\"api_key\\":\\"[redacted]\\",\\"n\\":1}"}'
    ],
    [JSON.stringify("mine:\nsk-proj-abcdef123456\n"), '"mine:\\n[redacted]\\n"'],
    [JSON.stringify("write\njo@example.com"), '"write\\n[redacted]"'],
    [JSON.stringify({ token: 'a"b' }), '{"token":"[redacted]"}']
  ])("lose just the secret of %j", (text, expected) => {
    assert.strictEqual(Redaction.redact(text), expected)
  })
})

describe("prose", () => {
  it.each([
    "Explain the basic principles of bearer authentication and of bearer tokens.",
    "A key-value store with a primary key_column, task-force and disk-based.",
    "OpenAI tokens: prompt=128000, completion=4096, total=132096",
    '{"max_tokens":100000,"total_tokens": 1234567,"usage":{"prompt_tokens":1000000}}',
    "npm i effect@4.1.0 lodash@4.17.21 @llm/core, then tell @everyone",
    "at 1795252577000 ms, 1795252577000000 µs or 1795252577000000000 ns",
    "0.3333333333333333 and 3.14159265358979 and 2026-11-21T11:56:17.000Z",
    "trace 4bf92f3577b34da6a3ce929d0e0e4736, 00000000000000000000000000000000"
  ])("stays: %j", (text) => {
    assert.strictEqual(Redaction.redact(text), text)
  })
})

describe("e-mail addresses", () => {
  it.each([
    ["write to jo.bloggs+news@mail.example.co.uk.", "write to [redacted]."],
    ["<jo@example.com>,jo@example.org", "<[redacted]>,[redacted]"],
    ["o'brien@example.com", "[redacted]"],
    ["'jo@example.com'", "'[redacted]'"],
    ["jürgen@müller.de und Θεοδώρα@παράδειγμα.ελ", "[redacted] und [redacted]"],
    ["请联系jo@example.com谢谢", "请联系[redacted]谢谢"],
    ["mailto:jo@xn--bcher-kva.example?subject=x", "mailto:[redacted]?subject=x"],
    ["?to=jo%40example.com&n=1", "?to=[redacted]&n=1"],
    ["a@b@example.com", "a@[redacted]"],
    ["nobody@localhost, @example.com, a @ b.c", "nobody@localhost, @example.com, a @ b.c"]
  ])("%j becomes %j", (text, expected) => {
    assert.strictEqual(Redaction.redact(text), expected)
  })
})

describe("card numbers", () => {
  const checkDigit = (digits: string): string => {
    const sum = [...digits]
      .toReversed()
      .reduce(
        (total, digit, index) =>
          total + (index % 2 === 1 ? Number(digit) : Number("0246813579".charAt(Number(digit)))),
        0
      )
    return String((10 - (sum % 10)) % 10)
  }
  const digits = (length: number) =>
    fc.string({ unit: fc.constantFrom(..."0123456789"), minLength: length, maxLength: length })
  /** Prefixes that are issued, and how the numbers are printed. */
  const issued: ReadonlyArray<{ readonly prefix: string; readonly groups: ReadonlyArray<number> }> = [
    { prefix: "4", groups: [4, 4, 4, 4] },
    { prefix: "4", groups: [4, 4, 4, 4, 3] },
    { prefix: "4", groups: [4, 3, 3, 3] },
    { prefix: "55", groups: [4, 4, 4, 4] },
    { prefix: "2221", groups: [4, 4, 4, 4] },
    { prefix: "34", groups: [4, 6, 5] },
    { prefix: "36", groups: [4, 6, 4] },
    { prefix: "6011", groups: [4, 4, 4, 4] }
  ]
  const card = fc
    .constantFrom(...issued)
    .chain(({ groups, prefix }) => {
      const length = groups.reduce((sum, group) => sum + group, 0)
      return fc.record({
        groups: fc.constant(groups),
        gap: fc.constantFrom("", " ", "-"),
        body: digits(length - prefix.length - 1).map((rest) => `${prefix}${rest}`)
      })
    })
    .map(({ body, gap, groups }) => {
      const number = `${body}${checkDigit(body)}`
      let at = 0
      return groups.map((length) => number.slice(at, (at += length))).join(gap)
    })

  it("are removed in every grouping, also among other numbers", () => {
    const beside = fc.constantFrom("", "card ", "12 ", "n° 7, ", "2026-11-21 ", '"', "\n")
    const behind = fc.constantFrom(
      "",
      ".",
      " 12/27",
      " 123",
      "-123",
      " and 99 more",
      '"',
      " 1 2 3 4 5 6 7 8 9"
    )
    Property.holds(
      fc.tuple(beside, card, behind),
      ([before, number, after]) => {
        assert.notInclude(Redaction.redact(`${before}${number}${after}`), number)
      },
      2000
    )
  })

  it("are only those with a check digit that is right", () => {
    Property.holds(
      fc.tuple(card, fc.integer({ min: 1, max: 9 })),
      ([number, off]) => {
        // The first 16 of 19 digits may be a number of their own.
        if (number.length > 22) return
        const wrong = `${number.slice(0, -1)}${(Number(number.slice(-1)) + off) % 10}`
        assert.strictEqual(Redaction.redact(wrong), wrong)
      },
      1000
    )
  })

  it.each([
    "order 411111111111111111111111",
    "4111 1111 1111 1112",
    "+49 170 1234567 and +1 202 555 0143",
    "0000 0000 0000 0000",
    "DE89 3704 0044 0532 0130 01"
  ])("are not in %j", (text) => {
    assert.strictEqual(Redaction.redact(text), text)
  })
})

describe("custom patterns", () => {
  it("are removed wherever they match, whatever their flags and `lastIndex`", () => {
    for (const pattern of [/ticket-\d+/iu, /ticket-\d+/giu, /ticket-\d+/iy]) {
      pattern.lastIndex = 5
      const redact = Redaction.make({ patterns: [pattern] })
      for (let time = 0; time < 2; time++) {
        assert.strictEqual(redact("TICKET-1, then TICKET-2"), "[redacted], then [redacted]")
      }
      assert.strictEqual(pattern.lastIndex, 5)
    }
  })

  it("that match nothing remove nothing", () => {
    assert.strictEqual(Redaction.make({ patterns: [/x*/u] })("axxb"), "a[redacted]b")
  })
})

describe("a text of any length", () => {
  it.each([
    ["sk-proj-abcdef123456", "[redacted]"],
    ["jo@example.com", "[redacted]"],
    ["4111 1111 1111 1111", "[redacted]"],
    ["Bearer abcdef123456", "[redacted]"],
    ["token=abcdef123456", "token=[redacted]"],
    ['"cookie","abcdef"', '"cookie","[redacted]"'],
    ["https://jo:abc@example.com/", "https://[redacted]@example.com/"]
  ])("loses %j at its beginning, at its end and in between", (shown, safe) => {
    const redact = Redaction.make()
    for (const length of [0, 1, 12, 13, 63, 64, 65, 16_370, 16_384, 16_400, 40_000]) {
      for (const piece of ["a ", "é ", "\u{1F600} "]) {
        const filling = piece.repeat(length)
        const parts = (middle: string) => `${middle} ${filling}${middle} ${filling}${middle}`
        assert.strictEqual(redact(parts(shown)), parts(safe))
      }
    }
  })

  it("loses a secret wherever it begins", () => {
    const redact = Redaction.make()
    const shown = [
      "sk-abcdef123456",
      "jo@example.com",
      "Bearer abcdef123456",
      '"cookie","abcdef"',
      "eyJabcdefghi.a"
    ]
    for (let place = 4060; place < 4110; place++) {
      for (const one of shown) assert.notInclude(redact(`${"x".repeat(place - 1)} ${one} end`), "abcdef")
    }
  })

  it("with any number of secrets is the same whether all of it is ASCII or not", () => {
    const redact = Redaction.make()
    const part = fc.constantFrom(
      "sk-abcdef123456",
      "jo@example.com",
      "token=abcdef",
      "4111 1111 1111 1111",
      "x",
      " "
    )
    Property.holds(
      fc.tuple(fc.array(part, { minLength: 1, maxLength: 300 }), fc.constantFrom("é", "名", "\ud800")),
      ([parts, other]) => {
        const text = parts.join(" ")
        assert.strictEqual(redact(`${text} ${other}`), `${redact(`${text} `)}${other}`)
      }
    )
  })

  it.each([
    ["password=4111111111111111", "password=[redacted]"],
    ['"password":"it is jo@example.com, sk-abcdef and 4111 1111 1111 1111"', '"password":"[redacted]"'],
    ["Authorization: Bearer sk-proj-abcdef123456, 1", "Authorization: [redacted], 1"],
    ["4111111111111111@example.com", "[redacted]"],
    ["cookie: a=b; token=abcdefgh; c=d\nnext", "cookie: [redacted]\nnext"],
    ["key sk-abcdef@example.com", "key [redacted]"]
  ])("has one mark where secrets overlap: %j becomes %j", (text, expected) => {
    assert.strictEqual(Redaction.redact(text), expected)
  })
})

describe("a cut text", () => {
  it("shows no half of an address or a number", () => {
    const piece = fc.constantFrom("jo.bloggs@mail.example.com", "4111 1111 1111 1111", "Bearer abcdefghijkl")
    Property.holds(
      fc.tuple(piece, fc.integer({ min: 0, max: 300 }), fc.integer({ min: 1, max: 80 })),
      ([hidden, offset, limit]) => {
        // What is removed before makes room for what stands at the cut.
        const text = `sk-${"x".repeat(offset)}abcdef ${`${hidden} `.repeat(60)}`
        const safe = Redaction.redact(text, limit)
        assert.notMatch(safe, /bloggs|4111|abcdef/u)
        assert.isAtMost(safe.length, limit + 1)
      },
      1000
    )
  })
})

describe("hostile texts", () => {
  const pieces = [
    "eyJ-",
    "eyJaaaaaaaa.",
    "sk-",
    "sk-abc ",
    "key-",
    "a@",
    "a@a.",
    "%40",
    "Bearer ",
    "Bearer=",
    "basic ",
    "token=",
    'token="',
    "token=\\",
    "token:        ",
    "cookie:",
    "://a",
    "://a:",
    "-----BEGIN PRIVATE KEY-----",
    "SG.",
    "AKIA",
    "ya29.",
    "1",
    "1 ",
    "1-",
    "4111 ",
    "-",
    "_",
    ":",
    "=",
    '\\"',
    "\\",
    "'",
    "a",
    " ",
    "\n",
    "é@é."
  ]

  // A pattern that looked at all of a text for each of its pieces would not come to an end here.
  it("are read through in one go", () => {
    const redact = Redaction.make()
    for (const piece of pieces) {
      const text = piece.repeat(Math.ceil(300_000 / piece.length))
      assert.isAtMost(redact(text).length, text.length * 3)
    }
    // Runs in which each piece may begin a secret that reaches to the end of all.
    for (const piece of ["AIza", "bearer=token="]) {
      assert.isAtMost(redact(piece.repeat(200_000)).length, piece.length * 200_000)
    }
    for (const start of ["Bearer ", "token=", 'password="', "sk-", "eyJ", "cookie: ", "jo@"]) {
      const text = `${start}${" ".repeat(300_000)}${"a".repeat(300_000)}`
      assert.isAtMost(redact(text).length, text.length + 100)
    }
  }, 60_000)

  it.each(["1", "1 ", "sk-a", "token=\\a", 'token="a'])(
    "of %j do not exhaust the stack",
    (piece) => {
      const text = `${piece}${piece.slice(-1).repeat(10_000_000)}`
      assert.isAtMost(Redaction.make()(text).length, text.length + 100)
    },
    60_000
  )

  it("that are mixed are as safe the second time", () => {
    const redact = Redaction.make()
    Property.holds(
      fc.array(fc.constantFrom(...pieces, "abcdef123", "example.com"), { maxLength: 40 }),
      (parts) => {
        const once = redact(parts.join(""))
        assert.isAtMost(redact(once).length, once.length + 10)
      }
    )
  })
})

describe("logger", () => {
  const key = "sk-proj-Q7xabcdef123456"

  it.effect.each([
    ["logfmt", Logger.formatLogFmt],
    ["JSON", Logger.formatJson],
    ["simple", Logger.formatSimple]
  ] as const)("redacts messages, annotations, spans and causes as %s", ([, format]) => {
    const lines: Array<string> = []
    const layer = Logger.layer([
      Logger.map(Redaction.logger(format, { patterns: [/TICKET-\d+/u] }), (line) => {
        lines.push(line)
      })
    ])
    return Effect.gen(function* () {
      yield* Effect.logError(
        `key ${key}`,
        { headers: { authorization: `Bearer ${key}`, cookie: `a=b; c=${key}` } },
        Cause.die(new Error(`inside\n${key}`, { cause: new Error(`deeper ${key}`) }))
      ).pipe(
        Effect.annotateLogs({
          secret: key,
          user: "jo@example.com",
          card: "4111 1111 1111 1111",
          about: "TICKET-12"
        }),
        Effect.withLogSpan(key)
      )
      assert.lengthOf(lines, 1)
      assert.notMatch(lines.join(""), /Q7xabcdef|jo@example|4111|TICKET-12/u)
      assert.include(lines.join(""), "[redacted]")
    }).pipe(Effect.provide(layer))
  })
})

class Failed extends Schema.TaggedError<Failed>()("Failed", {
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return this.detail
  }
}

describe("layerTracer", () => {
  const key = "sk-proj-Q7xabcdef123456"

  /** A tracer that keeps its spans, below the one that redacts. */
  const recorded = () => {
    const spans: Array<Tracer.NativeSpan> = []
    const layer = Layer.provide(
      Redaction.layerTracer({ patterns: [/TICKET-\d+/u] }),
      Layer.succeed(
        Tracer.Tracer,
        Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            spans.push(span)
            return span
          }
        })
      )
    )
    return { spans, layer }
  }

  const shown = (span: Tracer.NativeSpan): string =>
    [
      span.name,
      JSON.stringify([...span.attributes]),
      JSON.stringify(span.events, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value)),
      JSON.stringify(span.links.map(({ attributes }) => attributes)),
      span.status._tag === "Ended" && Exit.isFailure(span.status.exit)
        ? `${Cause.pretty(span.status.exit.cause)} ${JSON.stringify(span.status.exit.cause)}`
        : ""
    ].join("\n")

  it.effect("redacts names, attributes, events, links and failures", () => {
    const { layer, spans } = recorded()
    return Effect.gen(function* () {
      const circle: Record<string, unknown> = { key }
      circle["self"] = circle
      yield* Effect.gen(function* () {
        yield* Effect.annotateCurrentSpan({
          text: `my ${key}`,
          nested: {
            list: [key, { deep: "jo@example.com" }],
            map: new Map([[key, key]]),
            set: new Set([key])
          },
          circle,
          number: 4111111111111111,
          error: new Error(key),
          url: new URL(`https://user:${key}@localhost/`),
          [key]: 1,
          ticket: "TICKET-12",
          kept: 42
        })
        const span = yield* Effect.currentSpan
        span.event(`said ${key}`, 1n, { header: `Bearer ${key}` })
        span.addLinks([{ span, attributes: { later: key } }])
        return yield* new Failed({ detail: `failed with ${key}`, cause: new Error(key) })
      }).pipe(
        Effect.withSpan(`work on ${key}`, {
          links: [
            { span: Tracer.externalSpan({ spanId: "1", traceId: "2" }), attributes: { first: `my ${key}` } }
          ]
        }),
        Effect.exit
      )
      assert.lengthOf(spans, 1)
      const text = spans.map(shown).join("\n")
      assert.notMatch(text, /Q7xabcdef|jo@example|4111111|TICKET-12/u)
      assert.include(text, "failed with [redacted]")
      assert.strictEqual(spans[0]?.attributes.get("kept"), 42)
    }).pipe(Effect.provide(layer))
  })

  it.effect("leaves what succeeded, was interrupted, or holds no secret as it was", () => {
    const { layer, spans } = recorded()
    return Effect.gen(function* () {
      yield* Effect.succeed(1).pipe(Effect.withSpan("fine", { attributes: { a: 1, when: new Date(0) } }))
      yield* Effect.interrupt.pipe(Effect.withSpan("left"), Effect.exit)
      const [fine, left] = spans
      assert.deepStrictEqual(
        [...(fine?.attributes ?? [])],
        [
          ["a", 1],
          ["when", new Date(0)]
        ]
      )
      assert.isTrue(
        left?.status._tag === "Ended" &&
          Exit.isFailure(left.status.exit) &&
          Cause.hasInterruptsOnly(left.status.exit.cause)
      )
    }).pipe(Effect.provide(layer))
  })

  it.effect("does not visit a value again that it has seen", () => {
    const { layer, spans } = recorded()
    return Effect.gen(function* () {
      let visits = 0
      let wide: unknown = {
        get leaf() {
          visits += 1
          return "x"
        }
      }
      for (let level = 0; level < 6; level++) {
        const below = wide
        wide = Array.from({ length: 50 }, () => below)
      }
      yield* Effect.void.pipe(Effect.withSpan("wide", { attributes: { wide } }))
      assert.lengthOf(spans, 1)
      assert.isAtMost(visits, 1)
    }).pipe(Effect.provide(layer))
  })
})
