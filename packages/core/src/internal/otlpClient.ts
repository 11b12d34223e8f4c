/**
 * The way to a collector: no request lasts for ever, few are on their way at a time, and a collector that wants to be
 * left alone for long is. What cannot be sent is dropped, not heaped up.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Headers from "effect/http/Headers"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientError from "effect/http/HttpClientError"
import * as Result from "effect/Result"

/** Batches that may be on their way at a time, of all signals. */
const most = 8

/** A collector that asks for more, in milliseconds, is given up on: waiting batches would fill the memory. */
const longest = 10_000

/** A collector is complained about at most so often, in milliseconds. */
const silence = 60_000

/** @param timeout milliseconds until a collector has answered whole, per request */
export const make = (
  client: HttpClient.HttpClient,
  endpoint: string,
  timeout: number
): HttpClient.HttpClient => {
  let busy = 0
  let complainedAt = Number.NEGATIVE_INFINITY

  const complain = (what: string) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      if (now < complainedAt + silence) return Effect.void
      complainedAt = now
      return Effect.logWarning(`Telemetry is not exported to ${endpoint}: ${what}`)
    })

  return HttpClient.transform(client, (execute, request) =>
    Effect.suspend(() => {
      // A failure that is not taken for a passing one: the exporter drops what it holds.
      const giveUp = (description: string) =>
        new HttpClientError.HttpClientError({
          reason: new HttpClientError.EncodeError({ request, description })
        })
      const silent = new HttpClientError.HttpClientError({
        reason: new HttpClientError.TransportError({ request, description: `no answer within ${timeout} ms` })
      })
      if (busy >= most) {
        const description = `${most} batches are on their way already`
        return Effect.andThen(complain(description), Effect.fail(giveUp(description)))
      }
      busy++
      return execute.pipe(
        // The body is part of the answer: a collector must not hang in the middle of it either.
        Effect.tap((response) => Effect.ignore(response.arrayBuffer)),
        Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.fail(silent) }),
        Effect.flatMap((response) => {
          if (response.status < 400) return Effect.succeed(response)
          const answered = `it answered ${response.status}`
          return Effect.flatMap(Effect.andThen(complain(answered), Clock.currentTimeMillis), (now) => {
            const hint = Headers.parseRetryAfter(response.headers["retry-after"] ?? "")
            return Result.isSuccess(hint) &&
              Duration.toMillis(Headers.retryAfterDelay(hint.success, now)) > longest
              ? Effect.fail(giveUp(`${answered}, and asks to be left alone`))
              : Effect.succeed(response)
          })
        }),
        Effect.tapError((error) => complain(error.reason.description ?? "it cannot be reached")),
        Effect.ensuring(
          Effect.sync(() => {
            busy--
          })
        )
      )
    })
  )
}
