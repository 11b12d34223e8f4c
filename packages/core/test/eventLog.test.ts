import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { EventLog, type Reader } from "../src/internal/eventLog.ts"
import * as Property from "./support/Property.ts"

const window = 64

const command = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ _tag: fc.constant("append" as const), size: fc.integer({ min: 1, max: 40 }) })
  },
  {
    weight: 6,
    arbitrary: fc.record({
      _tag: fc.constant("read" as const),
      reader: fc.nat(9),
      chunks: fc.integer({ min: 1, max: 8 })
    })
  },
  { weight: 1, arbitrary: fc.constant({ _tag: "join" as const }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("leave" as const), reader: fc.nat(9) }) }
)

const byteAt = (position: number) => (position * 7) % 251

describe("eventLog", () => {
  it("gives each reader every byte from the start, holds no more than its window, and waits for nobody but the fastest", () =>
    Property.holds(
      fc.array(command, { maxLength: 200 }),
      (commands) => {
        const log = new EventLog<"end">(window)
        const readers: Array<{ readonly reader: Reader<"end">; position: number; isCut: boolean }> = []
        let written = 0
        let largest = 0
        let isPaused = false
        const fastest = () =>
          Math.max(0, ...readers.filter(({ isCut }) => !isCut).map(({ position }) => position))

        for (const step of commands) {
          switch (step._tag) {
            case "append": {
              if (isPaused) break
              const chunk = Uint8Array.from({ length: step.size }, (_, at) => byteAt(written + at))
              written += step.size
              largest = Math.max(largest, step.size)
              const goesOn = log.append(chunk)
              if (!goesOn) {
                assert.isAbove(written, window)
                assert.isAtLeast(written - fastest(), window / 2)
                isPaused = true
                log.onDrain(() => {
                  isPaused = false
                })
                assert.isTrue(isPaused, "it calls back when there is room, not before")
              }
              break
            }
            case "join": {
              if (log.isWhole) readers.push({ reader: log.join(), position: 0, isCut: false })
              break
            }
            case "leave": {
              readers.splice(step.reader, 1)[0]?.reader.leave()
              break
            }
            case "read": {
              const entry = readers[step.reader]
              if (entry === undefined) break
              for (let chunk = 0; chunk < step.chunks; chunk++) {
                const found = entry.reader.poll()
                if (found === "behind") {
                  assert.isAbove(written - entry.position, window)
                  assert.isAbove(fastest() - entry.position, window / 2)
                  entry.isCut = true
                  break
                }
                if (found === "waiting") {
                  assert.strictEqual(entry.position, written)
                  break
                }
                if (!(found instanceof Uint8Array)) throw new Error("nobody closed it")
                found.forEach((byte, at) => assert.strictEqual(byte, byteAt(entry.position + at)))
                entry.position += found.length
              }
              break
            }
          }
          assert.isAtMost(log.held, window + largest)
          if (isPaused && readers.some(({ isCut }) => !isCut)) {
            assert.isAtLeast(written - fastest(), window / 2, "a pause ends as soon as somebody has read on")
          }
        }
      },
      500
    ))

  it("tells each waiting reader once of what is new, and all of the end", () => {
    const log = new EventLog<"end">(window)
    const told: Array<string> = []
    const first = log.join()
    const second = log.join()
    first.onChange = () => told.push("first")
    second.onChange = () => told.push("second")
    log.append(Uint8Array.of(1))
    log.append(Uint8Array.of(2))
    assert.deepStrictEqual(told, ["first", "second"])

    first.onChange = () => told.push("end")
    log.close("end")
    assert.deepStrictEqual(told, ["first", "second", "end"])
    assert.deepStrictEqual([second.poll(), second.poll()], [Uint8Array.of(1), Uint8Array.of(2)])
    assert.deepStrictEqual([second.poll(), second.poll()], [{ exit: "end" }, { exit: "end" }])
  })
})
