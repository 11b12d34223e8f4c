import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { RecentEntries } from "../src/internal/recentEntries.ts"
import * as Property from "./support/Property.ts"

const key = fc.constantFrom("a", "b", "c", "d", "e", "f")

const command = fc.oneof(
  fc.record({ _tag: fc.constant("set" as const), key, size: fc.nat(120), life: fc.nat(30) }),
  fc.record({ _tag: fc.constant("get" as const), key }),
  fc.record({ _tag: fc.constant("remove" as const), key }),
  fc.record({ _tag: fc.constant("pass" as const), millis: fc.nat(20) })
)

interface Entry {
  readonly key: string
  readonly value: number
  readonly size: number
  readonly until: number
}

describe("recentEntries", () => {
  it("does what a list does that is kept in order of use", () => {
    const input = fc.record({
      capacity: fc.integer({ min: 1, max: 5 }),
      maxBytes: fc.integer({ min: 1, max: 250 }),
      commands: fc.array(command, { maxLength: 150 })
    })
    Property.holds(
      input,
      ({ capacity, commands, maxBytes }) => {
        const entries = new RecentEntries<number>(capacity, maxBytes)
        let model: ReadonlyArray<Entry> = []
        let now = 0
        const bytes = () => model.reduce((sum, entry) => sum + entry.size, 0)
        for (const [value, step] of commands.entries()) {
          switch (step._tag) {
            case "pass": {
              now += step.millis
              break
            }
            case "remove": {
              entries.remove(step.key)
              model = model.filter((entry) => entry.key !== step.key)
              break
            }
            case "set": {
              const until = now + step.life
              entries.set(step.key, value, step.size, until)
              model = model.filter((entry) => entry.key !== step.key)
              if (step.size <= maxBytes) model = [...model, { key: step.key, value, size: step.size, until }]
              while (model.length > capacity || bytes() > maxBytes) model = model.slice(1)
              break
            }
            case "get": {
              const found = model.find((entry) => entry.key === step.key)
              model = model.filter((entry) => entry !== found)
              const isFresh = found !== undefined && now < found.until
              if (isFresh) model = [...model, found]
              assert.strictEqual(entries.get(step.key, now), isFresh ? found.value : undefined)
              break
            }
          }
          assert.strictEqual(entries.count, model.length)
          assert.strictEqual(entries.bytes, bytes())
        }
      },
      500
    )
  })
})
