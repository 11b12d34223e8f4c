/** `pnpm bench [gateway|library|…] [options]`: one measurement, or the first two one after the other. */
import * as Conversation from "./conversation.ts"
import * as Gateway from "./gateway.ts"
import * as Growth from "./growth.ts"
import * as Ledger from "./ledger.ts"
import * as Library from "./library.ts"
import * as Policies from "./policies.ts"
import * as Soak from "./soak.ts"
import * as Telemetry from "./telemetry.ts"
import * as Workers from "./workers.ts"

const [which, ...options] = process.argv.slice(2)
if (which === "gateway") await Gateway.run(options)
else if (which === "growth") await Growth.run(options)
else if (which === "workers") await Workers.run(options)
else if (which === "soak") await Soak.run(options)
else if (which === "library") await Library.run(options)
else if (which === "ledger") await Ledger.run(options)
else if (which === "policies") await Policies.run(options)
else if (which === "telemetry") await Telemetry.run(options)
else if (which === "conversation") await Conversation.run(options)
else if (which === undefined || which === "--quick") {
  const all = which === undefined ? options : [which, ...options]
  await Gateway.run(all)
  await Library.run(all)
} else {
  console.error(
    "Usage: bench [gateway|workers|growth|soak|library|policies|ledger|telemetry|conversation] [options]; with --help it lists them"
  )
  process.exitCode = 2
}
