# Loss curve of a run: gnuplot -e "out='runs/x'; trigram=1.9" script/loss.gp
set terminal svg size 900,540 background "white" font "sans,14"
set output out."/loss.svg"
set xlabel "bytes of text seen"
set ylabel "loss, nats per byte"
set format x "%.1s%c"
set yrange [1.2:4]
set grid lc rgb "#dddddd"
set key top right
plot out."/loss.dat" index 0 with lines lc rgb "#9bbcd8" title "training", \
     out."/loss.dat" index 1 with linespoints pt 7 lc rgb "#1f5f99" title "held out", \
     trigram with lines dashtype 2 lc rgb "#b03030" title "trigram model"
