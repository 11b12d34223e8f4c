/** Runs the simulator on its own: `node src/bin.ts --port 9099`. Ctrl-C stops it. */
import * as Program from "./Program.ts"

process.exitCode = await Program.run(process.argv.slice(2))
