import { Call } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context } from "effect"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

describe("Call", () => {
  it("is a one-shot call of the only deployment unless told", () => {
    assert.deepStrictEqual(Call.make({ provider: "openai", operation: "models.list" }), {
      provider: "openai",
      operation: "models.list",
      deployment: "default",
      stream: false
    })
  })

  it("keeps circuits and limits apart by provider, deployment and model, and by nothing else", () => {
    const call = Call.make({ provider: "azure", deployment: "west", operation: "chat.create", model: "m" })
    assert.strictEqual(Call.key(call), "azure/west/m")
    assert.strictEqual(
      Call.key({ ...call, operation: "chat.stream", stream: true, tenant: "t" }),
      "azure/west/m"
    )
    assert.strictEqual(
      Call.key(Call.make({ provider: "openai", operation: "models.list" })),
      "openai/default/*"
    )
  })

  it("names a call by a version 7 UUID: 48 bits of time, 74 of chance", () =>
    Property.holds(
      fc.record({
        time: fc.nat(2 ** 48 - 1),
        named: fc.nat(2 ** 26 - 1),
        front: fc.nat(2 ** 24 - 1),
        back: fc.nat(2 ** 24 - 1)
      }),
      ({ back, front, named, time }) => {
        const drawn = [named / 2 ** 26, (front + back / 2 ** 24) / 2 ** 24]
        const clock = {
          ...Context.get(Context.empty(), Clock.Clock),
          currentTimeMillisUnsafe: () => time
        }
        const random = {
          nextIntUnsafe: () => assert.fail("no integer is asked for"),
          nextDoubleUnsafe: () => drawn.shift() ?? assert.fail("two draws do")
        }
        const digits = (value: number, length: number) => value.toString(16).padStart(length, "0")
        const stamp = digits(time, 12)
        const id = [
          stamp.slice(0, 8),
          stamp.slice(8),
          `7${digits(Math.floor(named / 2 ** 14), 3)}`,
          digits(0x8000 + (named % 2 ** 14), 4),
          digits(front, 6) + digits(back, 6)
        ]
        assert.strictEqual(Call.newId(clock, random), id.join("-"))
      }
    ))
})
