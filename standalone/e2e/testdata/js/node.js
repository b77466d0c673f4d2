// Runs the scenario of its argument, and prints a line for each message that was
// accepted, then what came.
import {join} from 'node:path';

import {FileOutbox} from '../../../../pkg/client/js/linker-node.js';
import {Linker} from '../../../../pkg/client/js/linker.js';
import {run} from './scenario.js';

const {directory, ...scenario} = JSON.parse(process.argv[2]);
const received = await run({
  ...scenario, Linker,
  outboxOf: (user) => new FileOutbox(join(directory, user)),
  told: (accepted) => console.log(JSON.stringify({accepted})),
});
console.log(JSON.stringify({received}));
