"use strict";
// j and k go from sample to sample and unfold what they lie in; n and p go from rule to rule.
const samples = Array.from(document.querySelectorAll(".sample"));
const rules = Array.from(document.querySelectorAll("details.rule"));
let place = -1;

function show(number) {
  if (number < 0 || number >= samples.length) return;
  place = number;
  const sample = samples[place];
  const rule = sample.closest("details");
  if (rule && !rule.open) {
    for (const other of rules) other.open = other === rule;
  }
  sample.focus({ preventScroll: true });
  sample.scrollIntoView({ block: "nearest" });
  if (sample.getBoundingClientRect().top < 0) sample.scrollIntoView({ block: "start" });
}

function showRule(step) {
  const current = place < 0 ? null : samples[place].closest("details");
  let number = rules.indexOf(current) + step;
  while (rules[number] && !rules[number].querySelector(".sample")) number += step;
  if (rules[number]) show(samples.indexOf(rules[number].querySelector(".sample")));
}

const actions = {
  j: () => show(place + 1),
  k: () => show(place - 1),
  n: () => showRule(1),
  p: () => showRule(-1),
  g: () => { place = -1; window.scrollTo(0, 0); },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const action = actions[event.key];
  if (action) { event.preventDefault(); action(); }
});

document.addEventListener("focusin", (event) => {
  const number = samples.indexOf(event.target);
  if (number >= 0) place = number;
});

document.addEventListener("click", (event) => {
  const sample = event.target.closest(".sample");
  if (sample) place = samples.indexOf(sample);
});

// A link from a histogram opens the rule that it leads to.
function openTarget() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
}
window.addEventListener("hashchange", openTarget);
openTarget();
