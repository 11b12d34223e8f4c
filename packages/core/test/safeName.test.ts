import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as RedactionSweep from "../src/internal/redactionSweep.ts"
import * as SafeName from "../src/internal/safeName.ts"
import * as Property from "./support/Property.ts"

const character = fc.constantFrom(..."0123456789abcdef-")

describe("SafeName", () => {
  it("names of requests that are not looked through hold nothing that would be found", () => {
    Property.holds(
      fc.record({
        prefix: fc.constantFrom("", "req_", "sk-", "key-", "Bearer "),
        rest: fc.string({ unit: character, maxLength: 80 })
      }),
      ({ prefix, rest }) =>
        assert.strictEqual(SafeName.once(prefix + rest), RedactionSweep.removeSecrets(prefix + rest)),
      5000
    )
  })

  it("a key in the place of a request's name is taken out", () => {
    assert.notInclude(SafeName.once("req_sk-proj-0123456789abcdef0123456789abcdef"), "0123456789abcdef")
  })
})
