import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { FailedAttempts, networkOf } from "@llm/api/FailedAttempts"
import * as VirtualKey from "@llm/api/VirtualKey"
import * as EchoUpstream from "./support/EchoUpstream.ts"
import * as TeamGateway from "./support/TeamGateway.ts"

describe("failed attempts", () => {
  it("are as many as an address may have, and more with time", () => {
    const attempts = new FailedAttempts({ burst: 3, perMinute: 6 })
    for (const expected of [0, 0, 0, 10_000]) {
      assert.strictEqual(attempts.waitOf("10.0.0.1", 0), expected)
      if (expected === 0) attempts.add("10.0.0.1", 0)
    }
    assert.strictEqual(attempts.waitOf("10.0.0.2", 0), 0)
    assert.strictEqual(attempts.waitOf("10.0.0.1", 4000), 6000)
    assert.strictEqual(attempts.waitOf("10.0.0.1", 10_000), 0)
    attempts.add("10.0.0.1", 10_000)
    assert.strictEqual(attempts.waitOf("10.0.0.1", 10_000), 10_000)
  })

  it("are remembered of so many addresses, the latest", () => {
    const attempts = new FailedAttempts({ burst: 1, capacity: 100 })
    for (let index = 0; index < 10_000; index++) attempts.add(`10.0.${index >> 8}.${index & 255}`, 0)
    assert.strictEqual(attempts.size, 100)
    assert.isAbove(attempts.waitOf(`10.0.${9999 >> 8}.${9999 & 255}`, 0), 0)
    assert.strictEqual(attempts.waitOf("10.0.0.0", 0), 0)
  })

  it.each([
    ["192.0.2.7", "192.0.2.7"],
    ["::ffff:192.0.2.7", "192.0.2.7"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
    ["2001:db8:1:2::9", "2001:db8:1:2"],
    ["2001:0db8::1", "2001:db8:0:0"],
    ["::1", "0:0:0:0"],
    ["fe80::1%eth0", "fe80:0:0:0"]
  ])("of %s count for its network", (address, network) => {
    assert.strictEqual(networkOf(address), network)
  })

  it.live("turn an address away before the database is asked, but not the keys in use there", () =>
    Effect.gen(function* () {
      const upstream = yield* EchoUpstream.make
      const gateway = yield* TeamGateway.make({ upstream: upstream.url })
      const { secret } = yield* gateway.create()
      const ask = (key: string) =>
        Effect.promise(async () => {
          const reply = await fetch(`${gateway.origin}/v1/files`, {
            headers: { authorization: `Bearer ${key}` }
          })
          return { status: reply.status, headers: reply.headers, text: await reply.text() }
        })
      assert.strictEqual((yield* ask(secret)).status, 200)
      const seen: Array<number> = []
      for (let attempt = 0; attempt < 25; attempt++) seen.push((yield* ask(VirtualKey.newSecret())).status)
      assert.deepStrictEqual(new Set(seen.slice(0, 20)), new Set([401]))
      assert.strictEqual(seen.at(-1), 429)
      const refused = yield* ask(VirtualKey.newSecret())
      assert.include(refused.text, '"too_many_failed_attempts"')
      assert.isAtLeast(Number(refused.headers.get("retry-after")), 1)
      assert.strictEqual(refused.headers.get("x-should-retry"), "false")
      assert.strictEqual((yield* ask(secret)).status, 200)
    })
  )
})
