import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as fc from "fast-check"
import * as Explanation from "../src/Explanation.ts"
import * as ExplanationTable from "../src/ExplanationTable.ts"

const plain = { dim: (text: string) => text, red: (text: string) => text }
const marked = { dim: (text: string) => text, red: (text: string) => `<${text}>` }

const decode = Schema.decodeUnknownSync(Explanation.Explanation)

const failure = { error: "Overloaded", message: "the provider is overloaded" }

const hedged = {
  id: "call-1",
  operation: "embeddings.create",
  model: "text-embedding-3-small",
  tenant: "red",
  stream: false,
  beganAt: 0,
  status: 200,
  milliseconds: 1900,
  cache: "bypass",
  cost: "0.000012",
  attempts: [
    {
      number: 1,
      provider: "p",
      deployment: "west",
      model: "m",
      hedge: false,
      startedAt: 0,
      endedAt: 4,
      failure,
      executed: "no"
    },
    {
      number: 2,
      provider: "p",
      deployment: "west",
      model: "m",
      hedge: false,
      startedAt: 250,
      endedAt: 1900,
      interrupted: true,
      executed: "possibly"
    },
    {
      number: 3,
      provider: "p",
      deployment: "east",
      model: "m",
      hedge: true,
      startedAt: 1250,
      answeredAt: 1800,
      endedAt: 1900,
      interrupted: false,
      executed: "yes",
      requestId: "req_1"
    }
  ],
  waits: [
    { at: 4, milliseconds: 246, because: "retry", after: failure },
    { at: 0, milliseconds: 1, because: "limits" }
  ],
  limits: {
    concurrency: { key: "k", limit: null, inFlight: 1, waiting: 0 },
    limits: [
      { name: "idle", key: "k", requests: null, tokens: null, inFlight: 0, waiting: 0 },
      {
        name: "team",
        key: "k",
        requests: { limit: 60, remaining: 12.7, closedUntil: Date.UTC(2026, 10, 21, 12) },
        tokens: { limit: 100_000, remaining: -3, closedUntil: null },
        inFlight: 0,
        waiting: 2
      }
    ]
  },
  somethingNew: true
}

describe("make", () => {
  it("tells steps in their order: failures, waits and why, hedges, what was given up", () => {
    assert.strictEqual(
      ExplanationTable.make(decode(hedged), 80, marked),
      `call     call-1
asked    embeddings.create of text-embedding-3-small for team red
outcome  200 after 1.9 s

   AT   TOOK  STEP       DEPLOYMENT  MODEL
 0 ms   4 ms  attempt 1  west        m
              <Overloaded: the provider is overloaded>
 0 ms   1 ms  wait       in line for a limit's rate or place
 4 ms  0.2 s  wait       before the next attempt, after Overloaded
0.3 s  1.6 s  attempt 2  west        m
              given up, may be billed
1.3 s  0.7 s  hedge 3    east        m
              answered after 0.6 s, request req_1

cache    bypass
cost     $0.000012
limits   team: 12 of 60 requests left, closed until 2026-11-21 12:00:00 UTC, 0
         of 100,000 tokens left, 2 in line
`
    )
  })

  it("says what is not over, and what has no price", () => {
    const usage = { inputTokens: 1200, outputTokens: 3, cachedTokens: 100, reasoningTokens: 2 }
    const attempts = [{ number: 1, deployment: "west", startedAt: 0 }]
    const text = ExplanationTable.make(
      decode({ id: "a", operation: "o", attempts, waits: [], usage }),
      80,
      plain
    )
    assert.match(text, /\noutcome {2}not answered yet\n/u)
    assert.match(text, /\battempt 1 +west\n +still running\n/u)
    assert.match(text, /\ntokens {3}1,200 in, 3 out \(100 cached, 2 reasoning\)\ncost {5}unpriced\n$/u)
    assert.isFalse(
      Explanation.isComplete(decode({ id: "a", operation: "o", attempts, waits: [], status: 200 }))
    )
    assert.isTrue(
      Explanation.isComplete(decode({ id: "a", operation: "o", attempts: [], waits: [], status: 200 }))
    )
  })

  it("a server's words steer no terminal, and show no key", () => {
    const message = "\u001B[2J sk-proj-thisIsAVerySecretKey1234\nsecond line"
    const failed = { id: "a", operation: "o", attempts: [], waits: [], failure: { error: "Odd", message } }
    const text = ExplanationTable.make(decode(failed), 80, plain)
    assert.notInclude(text, "\u001B")
    assert.notInclude(text, "VerySecret")
    assert.include(text, "second line")
  })

  it("no line is wider than it may be, whatever is told", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 300 }), fc.integer({ min: 60, max: 200 }), (message, width) => {
        const attempts = [
          { number: 1, deployment: "west", model: "m", startedAt: 0, failure: { error: "E", message } }
        ]
        const waits = [{ at: 0, milliseconds: 5, because: message }]
        const told = { id: "a", operation: message, attempts, waits, status: 500, cache: message }
        for (const line of ExplanationTable.make(decode(told), width, plain).split("\n")) {
          assert.isAtMost(line.length, width)
        }
      })
    )
  })
})

describe("wrap", () => {
  it("loses nothing", () => {
    fc.assert(
      fc.property(
        fc.array(fc.stringMatching(/^\S{1,30}$/u)),
        fc.integer({ min: 1, max: 40 }),
        (words, width) => {
          const lines = ExplanationTable.wrap(words.join(" "), width)
          assert.isTrue(lines.every((line) => line.length <= width))
          assert.strictEqual(lines.join("").replaceAll(" ", ""), words.join(""))
        }
      )
    )
  })
})
