/**
 * What became of calls that were asked to explain themselves: attempts, waits and why, cache, usage, cost. Calls that
 * were not are not looked at.
 *
 * Held in memory, the latest only; who asked for an explanation is the only one who gets it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type Call, type LlmError, Observer, Redaction, type Usage } from "@llm/core"

/** Why an attempt failed. */
interface Failure {
  readonly error: string
  readonly message: string
}

/** One exchange. Times are milliseconds since the call began. */
interface Attempt {
  readonly number: number
  readonly provider: string
  readonly deployment: string
  readonly model: string | undefined
  /** It was started beside another. */
  readonly hedge: boolean
  readonly startedAt: number
  answeredAt?: number | undefined
  endedAt?: number | undefined
  failure?: Failure | undefined
  interrupted?: boolean
  /** Whether the provider may have done, and may bill, its work. */
  executed?: Observer.Executed
  usage?: Usage.Usage | undefined
  requestId?: string | undefined
}

/** Time that passed without an exchange. */
interface Wait {
  readonly at: number
  readonly milliseconds: number
  /** `limits`: in line for a rate or a place; `retry`: after a failure. */
  readonly because: "limits" | "retry"
  readonly after?: Failure
}

/** What the reply's head says. */
interface Outcome {
  readonly status: number
  readonly cache: string
  /** In dollars, as a decimal; absent where no price is known, and for streams. */
  readonly cost?: string | undefined
  readonly failure?: LlmError.LlmError | undefined
}

interface Explanation {
  readonly id: string
  readonly operation: string
  /** As the caller named it. */
  readonly model: string | undefined
  readonly stream: boolean
  /** Milliseconds since the epoch. */
  readonly beganAt: number
  readonly attempts: Array<Attempt>
  readonly waits: Array<Wait>
  /** Milliseconds that the call took; absent while it runs, and where it needed no exchange. */
  milliseconds?: number
  status?: number
  cache?: string
  cost?: string | undefined
  usage?: Usage.Usage | undefined
  failure?: Failure | undefined
}

export interface Service {
  /** Looks at a call from now on. */
  readonly watch: (
    call: Pick<Explanation, "id" | "operation" | "model" | "stream" | "beganAt">,
    owner: string
  ) => void
  /** Adds what became of it. */
  readonly settle: (id: string, outcome: Outcome) => void
  /** `undefined` for a call that is not known, or another's. */
  readonly find: (id: string, owner: string) => Explanation | undefined
}

/** Nothing is explained unless a Layer is provided. */
export const Explanations = Context.Reference<Service | undefined>("@llm/api/Explanations", {
  defaultValue: () => undefined
})

const failureOf = (error: LlmError.LlmError | undefined): Failure | undefined =>
  error === undefined ? undefined : { error: error._tag, message: Redaction.redact(error.message) }

/** An explanation is some hundred bytes for each attempt. */
const mostAttempts = 50

/** Makes the store, and what tells it of events. */
export const make = (capacity = 1000): { readonly service: Service; readonly observe: Observer.Observe } => {
  const known = new Map<string, { readonly owner: string; readonly told: Explanation }>()

  const find = (call: Call.Call): Explanation | undefined =>
    known.get(call.rescues ?? call.id ?? "")?.told ?? known.get(call.id ?? "")?.told
  const attemptOf = ({ attempts }: Explanation, call: Call.Call, number: number): Attempt | undefined =>
    attempts.findLast((attempt) => attempt.number === number && attempt.deployment === call.deployment)

  const observe: Observer.Observe = (event) => {
    if (known.size === 0 || !("call" in event)) return
    const told = find(event.call)
    if (told === undefined) return
    const at = event.at - told.beganAt
    switch (event._tag) {
      case "GatePassed":
        told.waits.push({ at: at - event.waited, milliseconds: event.waited, because: "limits" })
        break
      case "RetryScheduled": {
        const after = failureOf(event.error)
        const wait = { at, milliseconds: event.wait, because: "retry" } as const
        told.waits.push(after === undefined ? wait : { ...wait, after })
        break
      }
      case "AttemptStarted": {
        const { deployment, model, provider } = event.call
        if (told.attempts.length >= mostAttempts) break
        const { hedge, number } = event
        told.attempts.push({ number, provider, deployment, model, hedge, startedAt: at })
        break
      }
      case "Answered": {
        const attempt = attemptOf(told, event.call, event.number)
        if (attempt !== undefined) attempt.answeredAt = at
        break
      }
      case "AttemptEnded": {
        const attempt = attemptOf(told, event.call, event.number)
        if (attempt === undefined) break
        const { executed, interrupted, requestId, usage } = event
        Object.assign(attempt, { endedAt: at, failure: failureOf(event.error), interrupted })
        Object.assign(attempt, { executed, usage, requestId })
        break
      }
      case "CallEnded":
        told.milliseconds = at
        told.usage = event.usage
        told.failure = failureOf(event.error)
    }
  }

  const service: Service = {
    watch: (call, owner) => {
      for (const oldest of known.keys()) {
        if (known.size < capacity) break
        known.delete(oldest)
      }
      known.set(call.id, { owner, told: { ...call, attempts: [], waits: [] } })
    },
    settle: (id, { cache, cost, failure, status }) => {
      const told = known.get(id)?.told
      if (told === undefined) return
      Object.assign(told, { status, cache, cost })
      told.failure ??= failureOf(failure)
    },
    find: (id, owner) => {
      const found = known.get(id)
      return found?.owner === owner ? found.told : undefined
    }
  }
  return { service, observe }
}

/**
 * The explanations, and the observer that makes them: put it below the policies, and above other observers.
 *
 * @param capacity the most calls that are remembered; 1,000 unless told
 */
export const layer = (capacity?: number): Layer.Layer<never> =>
  Layer.unwrap(
    Effect.sync(() => {
      const { observe, service } = make(capacity)
      return Layer.merge(Layer.succeed(Explanations, service), Observer.layer(observe))
    })
  )
