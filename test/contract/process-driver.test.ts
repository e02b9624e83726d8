import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { ProcessDriver } from "../../executor/drivers/process/process-driver.ts";
import { describeDriver } from "./driver.contract.ts";

const openWith = (network: "namespace" | "shared") => (stateFolder: string) =>
  ProcessDriver.open({ stateFolder, network, clock: systemClock, log: silentLog });

describeDriver("process, shared loopback", openWith("shared"));
if (process.getuid?.() === 0) describeDriver("process, namespaces", openWith("namespace"));
