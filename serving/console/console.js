// The console: live numbers, and an explorer of items, sessions and what is recommended to them.

import { askForKey } from "./api.js";
import { showExperiments, startExperiments } from "./experiments.js";
import { startNeighbourhood } from "./neighbourhood.js";
import { watch } from "./numbers.js";
import { startSearch } from "./search.js";
import { choose, refresh, startSession } from "./session.js";
import { showTrending, startTrending } from "./trending.js";

const near = startNeighbourhood(choose);
const actions = { choose, near };

function again() {
  showTrending(actions);
  showExperiments();
  refresh();
}

askForKey(again);
watch(again);
startSession(near);
startSearch(actions);
startTrending(actions);
startExperiments();
refresh();
