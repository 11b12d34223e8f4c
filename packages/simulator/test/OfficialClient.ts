/** The official client against a simulator of its own. */
import { Effect } from "effect"
import OpenAI, { APIError } from "openai"
import { Simulator } from "@llm/simulator"

export const start = Effect.fnUntraced(function* (options?: Simulator.Options) {
  const simulator = yield* Simulator.make(options)
  const client = new OpenAI({ baseURL: simulator.url, apiKey: "sk-test-abcd", maxRetries: 0 })
  return { simulator, client }
})

/** What the call gives; a refusal fails the test. */
export const call = <A>(make: () => PromiseLike<A>): Effect.Effect<A> =>
  Effect.promise(async () => await make())

/** The fields of the error that a call is refused with. */
export const refused = (make: () => PromiseLike<unknown>) =>
  Effect.promise(async () => {
    let error: unknown
    try {
      await make()
    } catch (cause) {
      error = cause
    }
    if (!(error instanceof APIError)) throw new Error(`expected an APIError, got ${String(error)}`)
    const { code, param, status, type } = error
    return { status, type, code, param, message: error.message.replace(/^\d+ /, "") }
  })

/** All items of all pages. */
export const all = <A>(make: () => AsyncIterable<A>): Effect.Effect<ReadonlyArray<A>> =>
  Effect.promise(async () => {
    const items: Array<A> = []
    for await (const item of make()) items.push(item)
    return items
  })

/** The items of a stream that is still to come. */
export const flat = async function* <A>(stream: PromiseLike<AsyncIterable<A>>): AsyncGenerator<A> {
  yield* await stream
}
